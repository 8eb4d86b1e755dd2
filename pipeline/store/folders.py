"""Where runs and sweeps are, and what a sweep's folder says of its runs. Imports nothing heavy."""

from pathlib import Path
from typing import Any

from pipeline.files import read_json

RUNS = Path("outputs/runs")
SWEEPS = Path("outputs/sweeps")


def sweep_folder(target: str) -> Path | None:
    """The folder of a sweep given by folder or name; None where there is no such sweep."""
    folders = (Path(target), SWEEPS / target)
    return next((path for path in folders if (path / "sweep.json").exists()), None)


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """The runs of a sweep, each with ``run`` (its folder) and ``overrides``; none without one."""
    try:
        entries: list[dict[str, Any]] = read_json(folder / "sweep.json")["runs"]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return entries


def runs_of(folder: Path) -> list[Path]:
    """The folders of a sweep's runs, where they are there."""
    paths = [Path(entry["run"]) for entry in entries_of(folder)]
    return [path for path in paths if (path / "launch.json").exists()]
