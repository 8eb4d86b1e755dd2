"""multipruner retry: submit what failed, and what depended on it."""

from argparse import ArgumentParser, Namespace

from pipeline.commands.base import RUN_OR_SWEEP, Command, run_folders
from pipeline.errors import PipelineError


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", help=RUN_OR_SWEEP)


def _run(parsed: Namespace) -> None:
    from pipeline.executors import executor_named
    from pipeline.jobs import launching
    from pipeline.plan.run import config_of, launched_from
    from pipeline.plan.sweep import reopened
    from pipeline.screen import screen

    paths = [path.absolute() for path in run_folders([parsed.run])]
    with launched_from(paths[0]):
        configs = [config_of(path) for path in paths]
        if executor_named(configs[0].cluster.name).is_here:
            raise PipelineError("this runs in its own process: type its command again")
        launching.go_offline(configs)
        launching.launch(reopened(paths), screen(wraps=True))


COMMAND = Command("retry", "submit what failed, and what depended on it", _arguments, _run)
