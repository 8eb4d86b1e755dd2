"""What W&B wrote to disk, read back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = Any


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
