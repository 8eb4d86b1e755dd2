"""What a command is, and how the runs that it is about are named."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MOST_NAMED, ConfigError, DamagedError
from pipeline.store.folders import RUNS, runs_of, sweep_folder

RUN = "folder or name"
RUN_OR_SWEEP = "folder or name, of a run or a sweep"


@dataclass(frozen=True, slots=True)
class Command:
    """``multipruner NAME``. A file of this folder declares one as ``COMMAND``."""

    name: str
    help: str
    """What it does, in one line."""
    arguments: Callable[[ArgumentParser], None]
    """Adds its arguments to a parser."""
    run: Callable[[Namespace], None]
    """Does it. Raises ``PipelineError``."""


def run_folder(name: str) -> Path:
    """The folder of a run given by folder or name. Raises ``ConfigError``."""
    for path in (Path(name), RUNS / name):
        if (path / "launch.json").exists():
            return path
    for path in (Path(name), RUNS / name):
        if any(os.path.lexists(path / file) for file in ("launch.json", "run.json", "stages.json")):
            raise DamagedError(path / "launch.json", "it is missing")
    known = ", ".join(path.name for path in runs_here()[:MOST_NAMED])
    hint = f"there are: {known}" if known else "give its folder"
    raise ConfigError([f"run: there is no run {name} here; {hint}"])


def run_folders(names: Sequence[str]) -> list[Path]:
    """The folders of runs and of all runs of sweeps. Raises ``ConfigError``."""
    folders: list[Path] = []
    for name in names:
        sweep = sweep_folder(name)
        folders += (runs_of(sweep) if sweep else []) or [run_folder(name)]
    return list(dict.fromkeys(folders))


def runs_here() -> list[Path]:
    """The folders of all runs that were launched from here, the latest first."""
    runs = [path.parent for path in RUNS.glob("*/launch.json")]
    return sorted(runs, key=_launched_at, reverse=True)


def _launched_at(run: Path) -> float:
    """When it was first launched; where its folder is damaged, when that was written last."""
    path = run / "run.json"
    return (path if path.exists() else run).stat().st_mtime
