"""Walking what is on disk: every file of a store and of runs' folders, and whether it is whole."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.executors.submission import Submission, attempts, runs_that_want
from pipeline.files import ASIDE, content_of, read_object, read_sealed, understood
from pipeline.jobs.snapshot import is_snapshot
from pipeline.measure.record import read_record
from pipeline.plan.run import written_settings
from pipeline.pruning.evaluations import read_losses
from pipeline.pruning.records import read_steps
from pipeline.pruning.trajectory import Trajectory, read_identity
from pipeline.store import weights
from pipeline.store.digests import remembered
from pipeline.store.folders import entries_of, launch_of
from pipeline.store.leases import awaited_lease
from pipeline.store.results import DONE, damaged_files, provenance_in, recipe_in, result_in
from pipeline.store.run_folder import RunFolder, check_kept, kept_folders
from pipeline.store.summary import Summary

Look = Callable[[], object]
"""Reads something, and raises ``DamagedError`` where it is not what was written."""
KINDS = (
    "stages", "trajectories", "records", "evaluations", "digests", "weights", "submissions", "code",
)  # fmt: skip
"""The folders of a store."""
OBJECTS = (
    "pruning_config.json", "evaluation.json", "sensitivity.json", "search.json", "cancelled.json",
)  # fmt: skip
"""Files of a run's folder that hold an object each."""
OF_A_STAGE: tuple[Callable[[Path], object], ...] = (
    result_in, recipe_in, provenance_in, runs_that_want, attempts,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that is whole or damaged, with all its files."""

    path: Path
    looks: tuple[Look, ...]
    files_of_result: Path | None = None
    """The folder of a stage, whose files are looked at one by one."""

    def damages(self) -> Iterator[DamagedError]:
        """What is damaged of it."""
        seen: set[Path] = set()
        for damage in self._all():
            if damage.path not in seen:
                seen.add(damage.path)
                yield damage

    def _all(self) -> Iterator[DamagedError]:
        for look in self.looks:
            try:
                look()
            except DamagedError as damage:
                yield damage
            except OSError as error:
                yield DamagedError(self.path, f"it cannot be read: {error.strerror}")
        if self.files_of_result and (self.files_of_result / DONE).exists():
            yield from damaged_files(self.files_of_result)


def units_of_store(root: Path) -> Iterator[Unit]:
    """Everything that a store has, kind by kind."""
    yield Unit(root, tuple(partial(_check_folder, path) for path in _meant_as_folders(root)))
    for folder in _folders(root / "stages", "*/*"):
        yield Unit(folder, tuple(partial(look, folder) for look in OF_A_STAGE), folder)
    for kind, looks_of in (("trajectories", _steps_of), ("evaluations", _evaluations_of)):
        for folder in _folders(root / kind, "*"):
            yield Unit(folder, tuple(looks_of(folder)))
    for kind, look in (("records", read_record), ("digests", remembered)):
        for path in _files(root / kind):
            yield Unit(path, (partial(look, path),))
    for folder in _folders(root / "weights", "*"):
        yield Unit(folder, (partial(_check_weights, folder),))
    yield from _units_of_jobs(root)


def _units_of_jobs(root: Path) -> Iterator[Unit]:
    """What jobs were submitted with."""
    for folder in _folders(root / "submissions", "*"):
        if folder.name != "leases":
            yield Unit(folder, tuple(_reports_of(Submission(folder))))
    for folder in _folders(root / "code", "*"):
        yield Unit(folder, (partial(is_snapshot, folder),))
    for path in _files(root / "code"):
        yield Unit(path, (partial(read_sealed, path, path.name),))


def units_of_run(folder: Path) -> Iterator[Unit]:
    """The files of a run's folder."""
    looks: dict[str, Look] = {
        "run.json": partial(RunFolder(folder).owner),
        "config.yaml": partial(_check_copies, folder),
        "launch.json": partial(launch_of, folder),
        "stages.json": partial(_check_copies, folder),
        "summary.json": partial(Summary.checked, folder),
        "steps.jsonl": partial(_check_steps, folder),
        "metrics.jsonl": partial(_read_lines, folder / "metrics.jsonl"),
    }
    for name in OBJECTS:
        looks[name] = partial(read_object, folder / name)
    for name, look in looks.items():
        path = folder / name
        if path.exists() or path.is_symlink():
            yield Unit(path, (look,))
    for kept in kept_folders(folder):
        yield Unit(kept, (partial(check_kept, kept),))


def unit_of_sweep(folder: Path) -> Unit:
    """The list of a sweep's runs."""
    return Unit(folder / "sweep.json", (partial(entries_of, folder),))


def _steps_of(folder: Path) -> Iterator[Look]:
    yield partial(read_identity, folder / "identity.json")
    trajectory = Trajectory(folder, awaited_lease)
    names = [path.stem for path in _files(folder / "steps")]
    last = max((int(name) for name in names if name.isdecimal()), default=-1)
    for index in range(last + 1):
        yield partial(_read_step, trajectory, index)


def _evaluations_of(folder: Path) -> Iterator[Look]:
    yield partial(read_identity, folder / "identity.json")
    for path in _files(folder / "states"):
        yield partial(read_losses, path)


def _read_step(trajectory: Trajectory, index: int) -> None:
    if trajectory.read(index) is None:
        raise DamagedError(trajectory.path_of(index), "it is missing")


def _reports_of(submission: Submission) -> Iterator[Look]:
    yield lambda: submission.intent
    yield lambda: submission.job_id
    indexes = {path.name.split(".")[0] for path in _files(submission.folder)}
    for index in sorted(int(name) for name in indexes if name.isdecimal()):
        yield partial(submission.check, index)


def _check_weights(folder: Path) -> None:
    for damage in weights.damages(folder):
        raise damage


def _check_copies(run: Path) -> None:
    """What is written for people is what is read."""
    launch = launch_of(run)
    keys = run / "stages.json"
    if read_object(keys) != launch.keys:
        raise DamagedError(keys, "it has not the keys of launch.json")
    if launch.config is not None and written_settings(run) != launch.config:
        raise DamagedError(run / "config.yaml", "it is not the configuration of launch.json")


def _check_steps(run: Path) -> None:
    """Steps follow from their scores, and are as many as the summary of a finished run says."""
    path = run / "steps.jsonl"
    steps, summary = read_steps(path), Summary.read(run)
    if not all(understood(path, lambda: [step.decision.follows_its_scores for step in steps])):
        raise DamagedError(path, "a step removes what has not the lowest score")
    if summary and summary.status == "done" and 0 < summary.steps != len(steps):
        raise DamagedError(path, f"it has {len(steps)} steps of {summary.steps}")


def _read_lines(path: Path) -> list[Any]:
    lines = (content_of(path) or b"").splitlines()
    return understood(path, lambda: [json.loads(line) for line in lines])


def _meant_as_folders(root: Path) -> list[Path]:
    """Whatever has the name of a folder of ours."""
    kinds = [root / name for name in KINDS]
    inner = [root.glob(f"stages/*/*/{name}") for name in ("leases", "runs", "attempts")]
    inner += [root.glob(f"trajectories/*/{name}") for name in ("leases", "steps")]
    inner += [root.glob("evaluations/*"), root.glob("evaluations/*/states")]
    inner += [root.glob(pattern) for pattern in ("stages/*", "stages/*/*", "trajectories/*")]
    inner += [root.glob("submissions/*"), root.glob("submissions/*/*/leases")]
    return [path for path in (*kinds, *sorted(chain(*inner))) if _counts(path)]


def _check_folder(path: Path) -> None:
    if os.path.lexists(path) and not path.is_dir():
        raise DamagedError(path, "something that is no folder is in its place")


def _folders(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_dir() and _counts(path))


def _files(root: Path) -> list[Path]:
    """Files of ours, and whatever has the name of one."""
    return sorted(path for path in root.glob("*.json") if _counts(path))


def _counts(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix != ASIDE
