"""The record of one dimension's steps from one starting state: one file a step, decisions only."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline.files import encode, key_of, publish, read_json
from pipeline.pruning.steps import Step

Guard = Callable[[], None]
"""Raises ``LeaseLostError`` where this process may no longer write."""
Lock = Callable[
    [Path, Callable[[str], None], Callable[[], bool]], AbstractContextManager[Guard | None]
]
"""Makes this process the only writer of a folder, after waiting for whoever is: the first function
is told meanwhile who that is; the second says when to give up, which gives None."""


class Trajectory:
    """Steps on disk. Any process may read; only the holder of the lock records."""

    def __init__(self, folder: Path, lock: Lock) -> None:
        self.folder = folder
        self._lock = lock

    @property
    def key(self) -> str:
        """What the trajectory is found by."""
        return self.folder.name

    def read(self, index: int) -> Step | None:
        """Step ``index`` (from 0), or None where it was not taken yet."""
        try:
            return Step.from_json(read_json(self._path(index)))
        except FileNotFoundError:
            return None

    def has(self, index: int) -> bool:
        """Whether step ``index`` was taken."""
        return self._path(index).exists()

    def record(self, index: int, step: Step, made_by: Mapping[str, Any], guard: Guard) -> Step:
        """Publish step ``index`` and return what is on disk: the first writer's step stands."""
        guard()
        publish(self._path(index), encode(step.to_json() | {"made_by": dict(made_by)}))
        stored = self.read(index)
        assert stored is not None
        return stored

    def made_by(self, index: int) -> dict[str, Any]:
        """What was noted with step ``index``: library versions, device, time taken."""
        noted: dict[str, Any] = read_json(self._path(index))["made_by"]
        return noted

    def lock(
        self, on_wait: Callable[[str], None], gives_up: Callable[[], bool]
    ) -> AbstractContextManager[Guard | None]:
        """Become the writer, after waiting for whoever is; None where ``gives_up`` ended that."""
        return self._lock(self.folder, on_wait, gives_up)

    def _path(self, index: int) -> Path:
        return self.folder / "steps" / f"{index:05d}.json"


class TrajectoryStore:
    """All trajectories under one folder, each found by what decides its steps."""

    def __init__(self, root: Path, lock: Lock) -> None:
        self.root = root
        self._lock = lock

    def open(self, identity: Mapping[str, Any]) -> Trajectory:
        """The trajectory with this identity (plain JSON), new or with the steps it has."""
        trajectory = self.find(identity)
        publish(trajectory.folder / "identity.json", encode(dict(identity)))
        return trajectory

    def find(self, identity: Mapping[str, Any]) -> Trajectory:
        """The same to be read only: nothing is written, and it may have no steps."""
        return Trajectory(self.root / key_of(identity), self._lock)
