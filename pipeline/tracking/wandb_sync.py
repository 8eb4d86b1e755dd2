"""Sends what W&B does not have yet of runs whose processes could not reach it.

Every process that worked on a run has left a log of its own. W&B's own ``wandb sync`` sends them,
in the order in which they were written. It sends a log again from its first row where a part of it
has arrived before, and never counts one as sent whose last record a kill has torn. So it is given
copies, with the whole records that the server lacks.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.tracking.metrics import STEP
from pipeline.tracking.wandb_log import Record, read_log, write_log
from pipeline.tracking.wandb_reach import one_line, why_no_key, why_unreachable
from pipeline.tracking.wandb_sent import is_sent, mark_sent, unsent_logs

ASK_TIMEOUT_S = 15
SEND_TIMEOUT_S = 600.0
AWAY_S = 5.0
"""How long the server may be unreachable while a run is sent."""
POLL_S = 0.5


class SyncError(PipelineError):
    """W&B cannot be reached or refuses. What is not there yet can be sent again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent of a run."""

    pieces: int
    url: str


@dataclass(frozen=True)
class _Piece:
    log: Path
    records: list[Record]

    @property
    def run(self) -> Any:
        """The record that says which run it is of; None where a kill came before it."""
        return next((r.run for r in self.records if r.WhichOneof("record_type") == "run"), None)


class Sender:
    """Sends runs to W&B from a machine that reaches it. Use it as a context manager."""

    def __enter__(self) -> "Sender":
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise SyncError("W&B is not installed; type: pip install wandb") from error

        self._settings = wandb.setup(wandb.Settings(silent=True)).settings
        try:
            self._check_access()
        except SyncError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import wandb
        from wandb.sdk.lib import wbauth

        wbauth.unauthenticate_session()
        wandb.teardown()

    def _check_access(self) -> None:
        host = self._settings.base_url
        if no_key := why_no_key(self._settings):
            raise SyncError(f"{no_key} for {host}; type: wandb login --host {host}")
        self._check()

    def send(self, run_folder: Path) -> Sent | None:
        """Send a run that no process writes; None where all of it was sent before.

        Raises ``SyncError``; what has arrived until then is not sent again.
        """
        folder = run_folder.absolute() / "wandb"
        pieces = _pieces(folder)
        whole = [piece for piece in pieces if piece.run is not None]
        if not whole:
            mark_sent(piece.log for piece in pieces)
            return None
        last = whole[-1].run
        shown = self._summary(last)
        copies = folder / "sync"
        shutil.rmtree(copies, ignore_errors=True)
        try:
            logs = [_copy(piece, copies, shown) for piece in whole]
            output = self._run_sync(logs, folder)
            arrived = [is_sent(log) for log in logs]
        finally:
            shutil.rmtree(copies, ignore_errors=True)
        mark_sent(piece.log for piece, has in zip(whole, arrived, strict=True) if has)
        if not all(arrived):
            raise SyncError(_reason(output))
        mark_sent(piece.log for piece in pieces)
        url = re.findall(r"View run .* at (https?://\S+)", output)
        return Sent(len(whole), url[-1] if url else f"run {last.run_id}")

    def _check(self) -> None:
        if away := why_unreachable(self._settings):
            raise SyncError(f"W&B cannot be reached, {away}; nothing was marked as sent")

    def _summary(self, run: Any) -> dict[str, Any]:
        """The summary of the run as the server has it; empty where it has no such run."""
        import wandb

        self._check()
        try:
            api = wandb.Api(timeout=ASK_TIMEOUT_S)
            path = f"{run.entity or api.default_entity}/{run.project}/{run.run_id}"
            return dict(api.run(path).summary_metrics)
        except Exception as error:
            if "Could not find run" in str(error) or "could not find project" in str(error).lower():
                return {}
            raise SyncError(f"W&B did not answer: {one_line(error)}") from error

    def _run_sync(self, logs: list[Path], folder: Path) -> str:
        """Have W&B's command send the logs; what it printed."""
        environment = {
            **os.environ,
            "WANDB_DATA_DIR": str(folder / "data"),
            "WANDB_CACHE_DIR": str(folder / "cache"),
            "WANDB_MODE": "online",
        }
        output = folder / "sync" / "output.txt"
        with output.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "wandb", "sync", *map(str, logs)],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment,
                start_new_session=True,
            )  # fmt: skip
            try:
                self._wait_for(process)
            finally:
                _kill_all_of(process)
        return output.read_text(encoding="utf-8", errors="replace")

    def _wait_for(self, process: "subprocess.Popen[bytes]") -> None:
        """Until the process ends, or the server is gone for good: it would wait for hours."""
        end = time.monotonic() + SEND_TIMEOUT_S
        gone_since: float | None = None
        while process.poll() is None and time.monotonic() < end:
            if why_unreachable(self._settings) is None:
                gone_since = None
            else:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > AWAY_S:
                    return
            time.sleep(POLL_S)


def _pieces(folder: Path) -> list[_Piece]:
    """The logs that were not sent yet, oldest first."""
    pieces = [_Piece(log, read_log(log)[0]) for log in unsent_logs(folder)]
    return sorted(
        pieces, key=lambda piece: piece.run.start_time.ToNanoseconds() if piece.run else 0
    )


def _copy(piece: _Piece, copies: Path, shown: dict[str, Any]) -> Path:
    """Write what is new in a piece where ``wandb sync`` finds its files, too."""
    # The command passes over folders that are not named like those of offline processes.
    folder = copies / f"offline-{piece.log.parent.name.removeprefix('offline-')}"
    folder.mkdir(parents=True)
    (folder / "files").symlink_to(piece.log.parent / "files")
    write_log(folder / piece.log.name, _new(piece.records, shown))
    return folder / piece.log.name


def _new(records: list[Record], shown: dict[str, Any]) -> Iterator[Record]:
    """The records without the rows that ``shown``, a summary, has; it gets those that are kept."""
    rows = 0
    for record in records:
        if record.WhichOneof("record_type") != "history":
            yield record
            continue
        row = _row(record)
        if _is_in(row, shown):
            continue
        shown.update(_marks(row))
        record.history.step.num = rows
        for item in record.history.item:
            if _name(item) == ("_step",):
                item.value_json = str(rows)
        rows += 1
        yield record


def _row(record: Record) -> dict[tuple[str, ...], Any]:
    return {_name(item): json.loads(item.value_json) for item in record.history.item}


def _name(item: Any) -> tuple[str, ...]:
    return tuple(item.nested_key) or (item.key,)


def _marks(row: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """What a summary tells a row by: its step, or the digest of each of its files."""
    if (STEP,) in row:
        return {STEP: row[STEP,]}
    return {name[0]: {"sha256": row[name]} for name in row if name[1:] == ("sha256",)}


def _is_in(row: Mapping[tuple[str, ...], Any], shown: Mapping[str, Any]) -> bool:
    """Whether a summary shows that a row has arrived. Steps arrive in their order."""
    marks = _marks(row)
    if STEP in marks:
        return bool(marks[STEP] <= shown.get(STEP, -1))
    files = (shown.get(name) for name in marks)
    return bool(marks) and all(
        isinstance(file, dict) and file.get("sha256") == mark["sha256"]
        for file, mark in zip(files, marks.values(), strict=True)
    )


def _kill_all_of(process: "subprocess.Popen[bytes]") -> None:
    """End a process and W&B's own one, which it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(output: str) -> str:
    """Why the rest was not sent, in one line, from what ``wandb sync`` printed."""
    errors = [line for line in output.splitlines() if "ERROR" in line]
    if not errors:
        return "the connection was lost; the rest is sent by the same command when W&B is back"
    return one_line(errors[-1].partition("ERROR")[2])
