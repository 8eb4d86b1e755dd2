"""multipruner cancel: end a run's jobs."""

from argparse import ArgumentParser, Namespace

from pipeline.commands.base import RUN_OR_SWEEP, Command, run_folders


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", nargs="+", help=RUN_OR_SWEEP)


def _run(parsed: Namespace) -> None:
    from pipeline.jobs.cancelling import cancel

    for run in run_folders(parsed.run):
        cancel(run, print)


COMMAND = Command("cancel", "end a run's jobs, those included that wait", _arguments, _run)
