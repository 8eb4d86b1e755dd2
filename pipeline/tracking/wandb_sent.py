"""Which steps Weights & Biases has, as far as the disk can tell."""

import json
import subprocess
import sys
from pathlib import Path

from pipeline.files import read_json, replace
from pipeline.tracking.metrics import STEP

INSPECT_TIMEOUT_S = 20.0


class SentSteps:
    """The last step that an offline log holds or that the server has confirmed.

    ``sent.json`` has it from every process that finished. What another one sent before it was
    killed is read from its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "sent.json"
        self.step, was_closed = self._read()
        if not was_closed:
            self.step = max(self.step, self._step_in_latest_log())

    def open(self) -> None:
        """A process begins to send."""
        self._write(is_closed=False)

    def close(self, step: int) -> None:
        """The process finished; ``step`` was its last."""
        self.step = max(self.step, step)
        self._write(is_closed=True)

    def leave_out_offline_logs(self) -> None:
        """Have ``wandb sync`` pass over them: the server has their rows by now."""
        for log in self._offline_logs():
            log.with_suffix(".wandb.synced").touch()

    def _read(self) -> tuple[int, bool]:
        try:
            content = read_json(self._file)
            return int(content["step"]), bool(content["is_closed"])
        except FileNotFoundError:
            return -1, True
        except (ValueError, KeyError, TypeError):
            return -1, False

    def _write(self, is_closed: bool) -> None:
        replace(self._file, json.dumps({"step": self.step, "is_closed": is_closed}) + "\n")

    def _offline_logs(self) -> list[Path]:
        """The latest last."""
        return sorted(self._folder.glob("offline-run-*/*.wandb"))

    def _step_in_latest_log(self) -> int:
        logs = self._offline_logs()
        if not logs:
            return -1
        try:
            return last_step_in(logs[-1])
        except (OSError, ValueError, subprocess.SubprocessError):
            return -1  # rows are sent twice then; none is missing


def last_step_in(log: Path) -> int:
    """The last step in a log file of W&B's, whole or cut short; -1 without one."""
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    read = subprocess.run(  # noqa: S603
        inspect,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSPECT_TIMEOUT_S,
    )
    records = [json.loads(line) for line in read.stdout.splitlines() if line.startswith("{")]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return max((int(row[STEP]) for row in rows if STEP in row), default=-1)
