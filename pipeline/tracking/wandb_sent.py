"""What Weights & Biases has of a run, as far as the disk can tell."""

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.files import read_json, replace
from pipeline.tracking.metrics import STEP
from pipeline.tracking.wandb_log import read_log


class SentSteps:
    """The last step that an offline log holds or that the server has confirmed.

    ``sent.json`` has it from every process that finished. What another one sent before it was
    killed is read from its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "sent.json"
        self.shown: dict[str, str] = {}
        """Digests of the tables and pictures by name."""
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

    def leave_out_all_logs(self) -> None:
        """Have ``sync`` pass over them: the server has their rows by now."""
        mark_sent(unsent_logs(self._folder))

    def _read(self) -> tuple[int, bool]:
        try:
            content = read_json(self._file)
            self.shown = dict(content.get("shown", {}))
            return int(content["step"]), bool(content["is_closed"])
        except FileNotFoundError:
            return -1, True
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return -1, False

    def _write(self, is_closed: bool) -> None:
        content = {"step": self.step, "is_closed": is_closed, "shown": self.shown}
        replace(self._file, json.dumps(content) + "\n")

    def _offline_logs(self) -> list[Path]:
        """The latest last."""
        return sorted(self._folder.glob("offline-run-*/*.wandb"))

    def _step_in_latest_log(self) -> int:
        logs = self._offline_logs()
        if not logs:
            return -1
        try:
            return last_step_in(logs[-1])
        except (OSError, ValueError):
            return -1  # rows are sent twice then; none is missing


def unsent_logs(folder: Path) -> list[Path]:
    """Logs of a run's processes, online or not, that the server is not known to have in full."""
    logs = folder.glob("*run-*/run-*.wandb")
    return sorted(log for log in logs if not is_sent(log))


def is_sent(log: Path) -> bool:
    """Whether a log is marked as ``wandb sync`` marks what it has sent."""
    return _mark_of(log).exists()


def mark_sent(logs: Iterable[Path]) -> None:
    """Have ``sync`` pass over logs."""
    for log in logs:
        _mark_of(log).touch()


def _mark_of(log: Path) -> Path:
    return log.with_suffix(".wandb.synced")


def last_step_in(log: Path) -> int:
    """The last step in a log file of W&B's, whole or cut short; -1 without one."""
    items = (item for record in read_log(log)[0] for item in record.history.item)
    steps = (int(item.value_json) for item in items if STEP in (item.key, *item.nested_key))
    return max(steps, default=-1)
