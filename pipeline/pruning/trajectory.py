"""The record of one dimension's steps from one starting state: one file a step, decisions only."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StageError
from pipeline.files import encode, key_of, publish, read_json
from pipeline.pruning.state import Candidate

Guard = Callable[[], None]
"""Raises ``LeaseLostError`` where this process may no longer write."""
Lock = Callable[
    [Path, Callable[[str], None], Callable[[], bool]], AbstractContextManager[Guard | None]
]
"""Makes this process the only writer of a folder, after waiting for whoever is: the first function
is told meanwhile who that is; the second says when to give up, which gives None."""


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate and the perplexity of the model without it; None where that is no number."""

    candidate: Candidate
    ppl: float | None
    estimated: bool = False
    """Whether the number is an estimate: good enough to see that another candidate goes."""

    def to_json(self) -> dict[str, Any]:
        """The candidate's keys and its perplexity; ``estimated`` only where it is."""
        mark = {"estimated": True} if self.estimated else {}
        return {**asdict(self.candidate), "ppl": self.ppl, **mark}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ScoredCandidate":
        """The inverse of ``to_json``."""
        candidate = Candidate(data["unit"], data["layer"], data["width_after"])
        return cls(candidate, data["ppl"], data.get("estimated", False))


@dataclass(frozen=True, slots=True)
class Step:
    """One removal: every candidate with its perplexity, and the one that went."""

    chosen: Candidate
    importance: float
    """Perplexity of the model after the removal; the lowest of all candidates."""
    scored: tuple[ScoredCandidate, ...]
    audited: Candidate | None = None
    """What exhaustive scoring would have chosen, where a faster search was checked against it."""

    @classmethod
    def choose(cls, scored: Sequence[ScoredCandidate]) -> "Step":
        """The first candidate with the lowest perplexity goes; estimates and not-a-number never."""
        finite = [
            (s.ppl, s.candidate)
            for s in scored
            if s.ppl is not None and math.isfinite(s.ppl) and not s.estimated
        ]
        if not finite:
            raise StageError(
                f"none of the {len(scored)} candidates has a finite perplexity: the model or its "
                "precision is at fault; try model.dtype=float32. The steps so far are kept."
            )
        importance, chosen = min(finite, key=lambda pair: pair[0])
        return cls(chosen, importance, tuple(scored))

    @property
    def refused(self) -> list[Candidate]:
        """Candidates whose perplexity is not a finite number."""
        return [s.candidate for s in self.scored if s.ppl is None]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; floats keep every bit."""
        return {
            "chosen": asdict(self.chosen),
            "importance": self.importance,
            "candidates": [s.to_json() for s in self.scored],
            **({"audited": asdict(self.audited)} if self.audited else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Step":
        """The inverse of ``to_json``."""
        scored = tuple(ScoredCandidate.from_json(entry) for entry in data["candidates"])
        audited = Candidate(**data["audited"]) if "audited" in data else None
        return cls(Candidate(**data["chosen"]), data["importance"], scored, audited)


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
