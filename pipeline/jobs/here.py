"""How stages stand that no job was submitted for: some process runs them itself, or did.

Told by the leases that it holds, and by the summary that it leaves where it comes to its end.
"""

from pathlib import Path
from typing import Literal

from pipeline.store.leases import holder_of, last_beat
from pipeline.store.run_folder import TRACKING
from pipeline.store.summary import FILE, Summary

AGAIN = "the process ended before it was done; type its command again, its steps are kept"
Standing = tuple[Literal["running", "pending", "failed", "interrupted"], str]
"""The state, and the process or why."""


def standing_of(run: Path, stage: str, key: str, folder: Path) -> Standing | None:
    """Of a stage that is not finished, in the folder of the store; None: nobody began it."""
    if holder := holder_of(folder):
        return "running", holder
    if holder := holder_of(run / TRACKING):
        return "pending", f"{holder} does what comes before"
    begun = last_beat(folder)
    if begun is None:
        return None
    failure = _failure(run, stage, key, begun)
    return ("failed", failure) if failure else ("interrupted", AGAIN)


def _failure(run: Path, stage: str, key: str, begun: float) -> str | None:
    """What the last process said that the stage failed of; None where it said nothing."""
    summary = Summary.read(run)
    entry = summary.stages.get(stage) if summary else None
    if summary is None or entry is None or entry.key != key or summary.status != "failed":
        return None
    is_of_last = (run / FILE).stat().st_mtime >= begun
    is_failure = entry.status != "reused" and summary.error != KeyboardInterrupt.__name__
    return summary.error if is_of_last and is_failure else None
