"""multipruner check: whether what is stored is what was written."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.base import Command
from pipeline.errors import ConfigError, DamagedError, StageError
from pipeline.files import set_aside
from pipeline.store.folders import RUNS, SWEEPS, launch_of

if TYPE_CHECKING:
    from pipeline.jobs.checking import Unit

STORE = Path("outputs/store")


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="*", type=Path,
        help="store, run or sweep; else all runs and sweeps here, and their stores",
    )  # fmt: skip
    parser.add_argument(
        "--repair", action="store_true",
        help="set aside what is damaged, so that the next launch makes it again",
    )  # fmt: skip


def _run(parsed: Namespace) -> None:
    from rich.progress import track

    from pipeline.screen import screen

    units = [unit for folder in parsed.folder or _here() for unit in _units(folder)]
    console = screen(to_errors=True)
    damaged = 0
    for unit in track(units, "checking", console=console, transient=True, disable=not _is_seen()):
        seen: set[Path] = set()
        while damages := [each for each in unit.damages() if each.path not in seen]:
            seen |= {damage.path for damage in damages}
            for damage in damages:
                print(set_aside(damage) if parsed.repair else damage, flush=True)
            if not parsed.repair:
                break
        damaged += len(seen)
    whole = f"{len(units)} results, steps and records looked at"
    if not damaged:
        print(f"{whole}: all are whole")
    elif parsed.repair:
        print(f"{whole}: damaged or missing are {damaged}; the next launch that needs one makes it")
    else:
        raise StageError(
            f"damaged or missing are {damaged}; what is damaged is set aside with: multipruner "
            "check --repair; the next launch that needs what is missing makes it"
        )


def _is_seen() -> bool:
    return sys.stderr.isatty()


def _here() -> Iterator[Path]:
    """The stores of the runs that are here, those runs, and the sweeps."""
    runs = sorted(path for path in RUNS.glob("*") if path.is_dir())
    stores = {STORE.absolute()}
    for run in runs:
        with suppress(DamagedError):
            stores.add(launch_of(run).store.absolute())
    yield from sorted(path for path in stores if path.is_dir())
    yield from runs
    yield from sorted(path for path in SWEEPS.glob("*") if path.is_dir())


def _units(folder: Path) -> "Iterator[Unit]":
    from pipeline.jobs.checking import unit_of_sweep, units_of_run, units_of_store

    if any((folder / name).is_dir() for name in ("stages", "trajectories", "records")):
        yield from units_of_store(folder)
    elif (folder / "sweep.json").exists():
        yield unit_of_sweep(folder)
    elif folder.is_dir():
        yield from units_of_run(folder)
    else:
        raise ConfigError([f"folder: there is no {folder}; give a store, a run or a sweep"])


COMMAND = Command(
    "check", "whether what is stored is whole; --repair sets aside what is not", _arguments, _run
)
