"""Runs that are mirrored to W&B, and what W&B wrote to disk, read back."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wandb_server import SentRun

from pipeline.tracking.wandb_session import WandbRun
from pipeline.tracking.wandb_tracker import WandbTracker

REPO = Path(__file__).parents[2]
MIRRORED_RUN = Path(__file__).with_name("mirrored_run.py")
RUN_ID = "abcdef012345"  # as in mirrored_run.py
KEY = "0123456789abcdef" * 2 + "testtest"
CLOSED = "http://127.0.0.1:9"

Json = Any


def target(folder: Path, **changed: object) -> WandbRun:
    return WandbRun(RUN_ID, folder, "multipruner", entity="team", **changed)  # type: ignore[arg-type]


def log_steps(tracker: WandbTracker, numbers: Iterable[int]) -> None:
    for step in numbers:
        tracker.log({"prune/step": step, "prune/ratio_percent": 1.5 * step})


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)


def core_pid(tracker: WandbTracker) -> int:
    wait_for(tracker._opened.is_set)
    core = tracker._session._core
    assert core is not None
    return core.pid


def start_mirrored_run(folder: Path, steps: int, end: str) -> "subprocess.Popen[str]":
    """Another process that works on the run; ``end`` as in mirrored_run.py."""
    return subprocess.Popen(
        [sys.executable, str(MIRRORED_RUN), str(folder), str(steps), end],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def offline_folders(run_folder: Path) -> list[Path]:
    """The folders of a run's offline processes, in order."""
    return sorted((run_folder / "wandb").glob("offline-run-*"))


def records(folder: Path) -> list[Json]:
    """All records of one process."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    read = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in read.stdout.splitlines()]


def of_type(found: list[Json], kind: str) -> list[Json]:
    """The records of one type."""
    return [record[kind] for record in found if record["type"] == kind]


def rows(found: list[Json]) -> list[Json]:
    """The logged rows."""
    return [history["item"] for history in of_type(found, "history")]


def steps(found: list[Json]) -> list[int]:
    """The steps of the logged rows that have one."""
    return [row["prune/step"] for row in rows(found) if "prune/step" in row]


def steps_sent(run: SentRun) -> list[int]:
    """The steps of the rows that a server has, in its order."""
    return [row["prune/step"] for row in run.history if "prune/step" in row]
