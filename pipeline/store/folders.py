"""Where runs and sweeps are, and what their folders say of a launch. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.files import read_object, read_sealed, understood

RUNS = Path("outputs/runs")
SWEEPS = Path("outputs/sweeps")


def sweep_folder(target: str) -> Path | None:
    """The folder of a sweep given by folder or name; None where there is no such sweep."""
    folders = (Path(target), SWEEPS / target)
    return next((path for path in folders if (path / "sweep.json").exists()), None)


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """The runs of a sweep, each with ``run`` (its folder) and ``overrides``; none without one.

    Raises ``DamagedError``.
    """
    path = folder / "sweep.json"
    content = read_object(path)
    if content is None:
        return []
    return understood(path, lambda: [_entry(entry) for entry in content["runs"]])


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    given = entry.get("overrides", [])
    if not (isinstance(entry["run"], str) and all(isinstance(each, str) for each in given)):
        raise TypeError
    return entry


@dataclass(frozen=True, slots=True)
class LaunchOfRun:
    """What a run's folder says of how it was launched."""

    folder: Path
    """Where the command was typed: relative paths count from there."""
    store: Path
    keys: Mapping[str, str]
    """Of its stages, by name, in an order in which they can run."""
    needs: Mapping[str, tuple[str, ...]]
    """Names of the stages that a stage needs."""
    reach: Mapping[str, float] | None
    """How far dimensions are pruned that runs share; earlier versions have it elsewhere."""
    config: dict[str, Any] | None
    """The resolved configuration; earlier versions have it in ``config.yaml`` alone."""


LAUNCH = "launch.json"


def launch_of(run: Path) -> LaunchOfRun:
    """Read it. Raises ``DamagedError``."""
    path, keys_path = run / LAUNCH, run / "stages.json"
    launch = read_sealed(path, LAUNCH)
    if launch is None:
        raise DamagedError(path, "it is missing")
    keys = launch.get("stages")
    if keys is None:  # of an earlier version
        keys = read_object(keys_path)
    if keys is None:
        raise DamagedError(keys_path, "it is missing")
    for key in keys.values():
        if not isinstance(key, str):
            raise DamagedError(keys_path, f"{key!r} is no key of a stage")

    def parse() -> LaunchOfRun:
        needs = {name: tuple(launch["needs"][name]) for name in keys}
        if any(need not in keys for each in needs.values() for need in each):
            raise ValueError
        reach = launch.get("reach")
        return LaunchOfRun(
            Path(launch["folder"]),
            Path(launch["store"]),
            keys,
            needs,
            None if reach is None else {name: float(to) for name, to in reach.items()},
            launch.get("config"),
        )

    return understood(path, parse)


def runs_of(folder: Path) -> list[Path]:
    """The folders of a sweep's runs, where they are there."""
    paths = [Path(entry["run"]) for entry in entries_of(folder)]
    return [path for path in paths if (path / "launch.json").exists()]
