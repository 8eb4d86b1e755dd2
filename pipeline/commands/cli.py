"""multipruner: what was launched, and what to do about it."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from pipeline import program
from pipeline.commands import commands, find_command
from pipeline.commands.reporting import report_errors
from pipeline.executors import announce_job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 done, 2 wrong arguments, 1 anything else."""
    program.begin()
    announce_job(os.environ)
    given = sys.argv[1:] if arguments is None else arguments
    parsed = _parser(given).parse_args(given)
    typed = shlex.join(["multipruner", *given])
    return report_errors(lambda: parsed.run_command(parsed), typed, heading="wrong:")


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """What reads the arguments: of the command that they begin with, or else of all."""
    chosen = find_command(given[0]) if given else None
    parser = argparse.ArgumentParser(prog="multipruner", description=__doc__, allow_abbrev=False)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in [chosen] if chosen else commands():
        subparser = subparsers.add_parser(command.name, help=command.help, allow_abbrev=False)
        command.arguments(subparser)
        subparser.set_defaults(run_command=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
