"""A sweep's folder, as it is read: the list of its runs."""

from pathlib import Path
from typing import Any

from pipeline.files import read_json

SWEEPS = Path("outputs/sweeps")


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
