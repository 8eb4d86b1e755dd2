"""multipruner sync: send runs that W&B does not have, or not in full, from where it is reached."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.base import RUN_OR_SWEEP, Command, run_folders, runs_here
from pipeline.errors import StageError
from pipeline.store.leases import holder_of, lease
from pipeline.tracking.wandb_sent import unsent_logs

if TYPE_CHECKING:
    from pipeline.tracking.wandb_sync import Sender


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", nargs="*", help=f"{RUN_OR_SWEEP}; else all runs")


def _run(parsed: Namespace) -> None:
    for line in sync(run_folders(parsed.run) or runs_here()):
        print(line, flush=True)


def sync(runs: Sequence[Path]) -> Iterator[str]:
    """Send runs given by their folders, one after the other; a line for each.

    Raises ``PipelineError`` where W&B cannot be reached, and in the end where a run was left out.
    """
    waiting = [run for run in runs if unsent_logs(run / "wandb")]
    if not waiting:
        yield "nothing to send"
        return
    from pipeline.tracking.wandb_sync import Sender

    left_alone = 0
    with Sender() as sender:
        for number, run in enumerate(waiting, start=1):
            line = _send(sender, run)
            left_alone += line is None
            outcome = line or f"{holder_of(run / 'tracking')} is writing it; left alone"
            yield f"[{number}/{len(waiting)}] {run.name}: {outcome}"
    if left_alone:
        raise StageError(f"{left_alone} of {len(waiting)} runs go on; sync again when they ended")


def _send(sender: "Sender", run: Path) -> str | None:
    """What became of a run; None where a process writes it."""
    # processes that begin meanwhile wait for the lease, so that no log grows while it is sent
    with lease(run / "tracking") as guard:
        if guard is None:
            return None
        sent = sender.send(run)
    if sent is None:
        return "nothing in it to send"
    return f"{sent.pieces} {'piece' if sent.pieces == 1 else 'pieces'} sent, {sent.url}"


COMMAND = Command("sync", "send to W&B what its jobs could not send", _arguments, _run)
