"""multipruner prefetch: download what a launch needs."""

from argparse import ArgumentParser, Namespace

from pipeline.commands.base import Command


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="as for launch.py: GROUP=OPTION KEY=VALUE")


def _run(parsed: Namespace) -> None:
    from pipeline.plan.prefetching import prefetch

    for line in prefetch(parsed.overrides):
        print(line, flush=True)


COMMAND = Command(
    "prefetch",
    "download what a launch with the same arguments needs, into the cache",
    _arguments,
    _run,
)
