"""The record of one dimension's steps from one starting state: one file a step, decisions only."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.files import (
    encode,
    key_of,
    publish,
    publish_sealed,
    read_object,
    read_sealed,
    understood,
)
from pipeline.pruning.steps import Step
from pipeline.pruning.units import Candidate

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

    def read(self, index: int, candidates: Sequence[Candidate] | None = None) -> Step | None:
        """Step ``index`` (from 0), or None where it was not taken yet.

        Raises ``DamagedError`` for a file that is not what was written, or is no decision among
        ``candidates``.
        """
        path = self.path_of(index)
        content = read_sealed(path, self._place(index))
        if content is None:
            return None
        step = understood(path, lambda: Step.from_json(content))
        if not understood(path, lambda: step.follows_its_scores):
            raise DamagedError(path, "what it removes has not the lowest score")
        if candidates is not None and not {s.candidate for s in step.scored} <= set(candidates):
            raise DamagedError(path, "it removes what cannot go after the steps before it")
        return step

    def has(self, index: int) -> bool:
        """Whether step ``index`` was taken."""
        return self.path_of(index).exists()

    def record(self, index: int, step: Step, made_by: Mapping[str, Any], guard: Guard) -> Step:
        """Publish step ``index`` and return what is on disk: the first writer's step stands."""
        guard()
        content = step.to_json() | {"made_by": dict(made_by)}
        publish_sealed(self.path_of(index), content, self._place(index))
        stored = self.read(index)
        assert stored is not None
        return stored

    def made_by(self, index: int) -> dict[str, Any]:
        """What was noted with step ``index``: library versions, device, time taken."""
        content = read_sealed(self.path_of(index), self._place(index)) or {}
        noted = content.get("made_by")
        return noted if isinstance(noted, dict) else {}

    def lock(
        self, on_wait: Callable[[str], None], gives_up: Callable[[], bool]
    ) -> AbstractContextManager[Guard | None]:
        """Become the writer, after waiting for whoever is; None where ``gives_up`` ended that."""
        return self._lock(self.folder, on_wait, gives_up)

    def path_of(self, index: int) -> Path:
        """The file of step ``index``."""
        return self.folder / "steps" / f"{index:05d}.json"

    def _place(self, index: int) -> str:
        return f"{self.key}/{index}"


class TrajectoryStore:
    """All trajectories under one folder, each found by what decides its steps."""

    def __init__(self, root: Path, lock: Lock) -> None:
        self.root = root
        self._lock = lock

    def open(self, identity: Mapping[str, Any]) -> Trajectory:
        """The trajectory with this identity (plain JSON), new or with the steps it has."""
        trajectory = self.find(identity)
        path = trajectory.folder / "identity.json"
        if not publish(path, encode(dict(identity))):
            read_identity(path)
        return trajectory

    def find(self, identity: Mapping[str, Any]) -> Trajectory:
        """The same to be read only: nothing is written, and it may have no steps."""
        return Trajectory(self.root / key_of(identity), self._lock)


def read_identity(path: Path) -> dict[str, Any]:
    """What a trajectory is found by. Raises ``DamagedError`` where its key is not the folder's."""
    identity = read_object(path)
    if identity is None:
        raise DamagedError(path, "it is missing")
    if understood(path, lambda: key_of(identity)) != path.parent.name:
        raise DamagedError(path, "its content is not what was written there")
    return identity
