"""A table of runs and their stages, once or until they end."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.files import content_of
from pipeline.jobs.status import LIVE, StageStatus, of_runs
from pipeline.stages import is_main

EVERY_S = 2.0
COLOURS = {
    "done": "green",
    "failed": "red",
    "interrupted": "yellow",
    "cancelled": "yellow",
    "running": "cyan",
}


def table_of(runs: Sequence[Path]) -> tuple[Table, bool]:
    """The table, and whether anything in it may still change."""
    table = Table(box=None, header_style="bold")
    for heading in ("run", "stage", "state", "job", "node", "restarts", "progress", "reason"):
        table.add_column(heading, overflow="fold")
    moves = False
    for run, states in zip(runs, of_runs(runs), strict=True):
        moves |= any(status.state in (*LIVE, "unknown") for status in states)
        for status in states:
            table.add_row(*_cells(run, status))
    return table, moves


def _cells(run: Path, status: StageStatus) -> list[str | Text]:
    state = Text(status.state, style=COLOURS.get(status.state, ""))
    shown = [status.job_id, status.node, status.restarts]
    cells = ["-" if value is None else str(value) for value in shown]
    progress = _count(steps(run)) if is_main(status.stage) else ""
    return [run.name, status.stage, state, *cells, progress, status.reason or ""]


def _count(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def steps(run: Path) -> int:
    """Steps that the run has on disk."""
    content = content_of(run / "steps.jsonl")
    return len(content.splitlines()) if content else 0


def follow(runs: Sequence[Path], console: Console) -> None:
    """Show the table until nothing in it can change any more."""
    table = wait_for(runs, console)
    if not console.is_terminal:
        console.print(table)


def wait_for(runs: Sequence[Path], console: Console) -> Table:
    """Wait until nothing can change any more, with the table on a terminal; what it says then."""
    table, moves = table_of(runs)
    if not console.is_terminal:
        while moves:
            time.sleep(EVERY_S)
            table, moves = table_of(runs)
        return table
    with Live(table, console=console, auto_refresh=False) as live:
        while moves:
            time.sleep(EVERY_S)
            table, moves = table_of(runs)
            live.update(table, refresh=True)
    return table
