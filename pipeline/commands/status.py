"""multipruner status: how runs stand."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.base import RUN_OR_SWEEP, Command, run_folders, runs_here
from pipeline.errors import DamagedError, StageError
from pipeline.store.folders import RUNS


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", nargs="*", help=f"{RUN_OR_SWEEP}; without one, all runs here")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("-f", "--follow", action="store_true", help="until nothing runs any more")


def _run(parsed: Namespace) -> None:
    runs, damages = _readable(run_folders(parsed.run) or runs_here())
    _show(parsed, runs)
    if damages:
        raise StageError("\n       ".join(f"{each}; launch it again" for each in damages))


def _readable(runs: Sequence[Path]) -> tuple[list[Path], list[DamagedError]]:
    """The runs whose folders say what they are, and what is damaged of the others."""
    from pipeline.jobs.status import places

    readable, damages = [], []
    for run in runs:
        try:
            places(run)
            readable.append(run)
        except DamagedError as damage:
            damages.append(damage)
    return readable, damages


def _show(parsed: Namespace, runs: Sequence[Path]) -> None:
    from pipeline.jobs import following
    from pipeline.screen import screen

    if parsed.json:
        _print_json(runs)
        return
    console = screen()
    if parsed.follow:
        following.follow(runs, console)
    elif runs:
        console.print(following.table_of(runs)[0])
    else:
        console.print(f"no run in {RUNS.absolute()}", soft_wrap=True)


def _print_json(runs: Sequence[Path]) -> None:
    from pipeline.jobs.following import steps
    from pipeline.jobs.status import of_runs, run_state

    entries = [
        {
            "run": str(run.absolute()),
            "state": run_state(states),
            "steps": steps(run),
            "stages": [status.to_json() for status in states],
        }
        for run, states in zip(runs, of_runs(runs), strict=True)
    ]
    print(json.dumps(entries, indent=1))


COMMAND = Command("status", "how runs stand", _arguments, _run)
