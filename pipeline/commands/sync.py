"""Sends runs that W&B does not have, or not in full, from a machine that reaches it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import StageError
from pipeline.store.leases import holder_of, lease
from pipeline.tracking.wandb_sent import unsent_logs
from pipeline.tracking.wandb_sync import Sender


def sync(runs: Sequence[Path]) -> Iterator[str]:
    """Send runs given by their folders, one after the other; a line for each.

    Raises ``PipelineError`` where W&B cannot be reached, and in the end where a run was left out.
    """
    waiting = [run for run in runs if unsent_logs(run / "wandb")]
    if not waiting:
        yield "nothing to send"
        return
    left_alone = 0
    with Sender() as sender:
        for number, run in enumerate(waiting, start=1):
            line = _send(sender, run)
            left_alone += line is None
            told = line or f"{holder_of(run / 'tracking')} is writing it; left alone"
            yield f"[{number}/{len(waiting)}] {run.name}: {told}"
    if left_alone:
        raise StageError(f"{left_alone} of {len(waiting)} runs go on; sync again when they ended")


def _send(sender: Sender, run: Path) -> str | None:
    """What became of a run; None where a process writes it."""
    # processes that begin meanwhile wait for the lease, so that no log grows while it is sent
    with lease(run / "tracking") as guard:
        if guard is None:
            return None
        sent = sender.send(run)
    if sent is None:
        return "nothing in it to send"
    return f"{sent.pieces} {'piece' if sent.pieces == 1 else 'pieces'} sent, {sent.url}"
