"""multipruner prefetch: download what a launch needs."""

from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

from pipeline.commands.base import Command
from pipeline.errors import ConfigError


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help="what a whole sweep needs")
    parser.add_argument(
        "overrides", nargs=REMAINDER, help="as for launch.py: [-m] [GROUP=OPTION] [KEY=VALUE]"
    )


def _run(parsed: Namespace) -> None:
    flags = ["--multirun"] if parsed.multirun else []
    for line in prefetch([*flags, *parsed.overrides]):
        print(line, flush=True)


def prefetch(arguments: Sequence[str]) -> Iterator[str]:
    """Bring everything into the cache that the launch with these arguments reads from the hub.

    Raises ``ConfigError`` with all that could not be brought.
    """
    from pipeline.config.compose import compose_command
    from pipeline.config.overrides import check
    from pipeline.plan.plan import source_of
    from pipeline.plan.prefetching import needed, problem_of
    from pipeline.plan.sweep import validated

    checked = check(arguments)
    combinations, _ = compose_command(checked.arguments, checked.problems)
    configs = validated(combinations, checked.problems)
    sources = {model: source_of(model) for model in dict.fromkeys(c.model for c in configs)}
    wanted = {
        name: bring for config in configs for name, bring in needed(config, sources[config.model])
    }
    problems: list[str] = []
    for name, bring in wanted.items():
        yield f"fetching {name}"
        problems += problem_of(name, bring)
    if problems:
        raise ConfigError(problems)
    yield "everything is in the cache; launch with cluster.offline=true"


COMMAND = Command(
    "prefetch",
    "download what a launch with the same arguments needs, into the cache",
    _arguments,
    _run,
)
