"""What every stage is given, besides its configuration and a folder of its own."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.measure.record import Record
from pipeline.models.loading import LiveModel
from pipeline.models.source import ModelSource
from pipeline.pruning.state import Candidate
from pipeline.pruning.trajectory import ScoredCandidate, Step, TrajectoryStore


@dataclass(frozen=True, slots=True)
class StepRow:
    """One line of ``steps.jsonl``: a step of the whole run, whichever trajectory it is from."""

    step: int
    dimension: str
    chosen: Candidate
    importance: float
    ratio_percent: float
    params: int
    scored: tuple[ScoredCandidate, ...]
    source: tuple[str, int]
    """The trajectory (its key) and the index there."""
    audited: Candidate | None = None
    """What exhaustive scoring would have chosen, where that was checked."""

    def to_json(self) -> dict[str, Any]:
        """The line's object."""
        return {
            "step": self.step,
            "dimension": self.dimension,
            **asdict(self.chosen),
            "importance": self.importance,
            "ratio_percent": self.ratio_percent,
            "params": self.params,
            "candidates": [s.to_json() for s in self.scored],
            **({"audited": asdict(self.audited)} if self.audited else {}),
            "source": list(self.source),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StepRow":
        """The inverse of ``to_json``."""
        trajectory, index = data["source"]
        return cls(
            step=data["step"],
            dimension=data["dimension"],
            chosen=Candidate(data["unit"], data["layer"], data["width_after"]),
            importance=data["importance"],
            ratio_percent=data["ratio_percent"],
            params=data["params"],
            scored=tuple(ScoredCandidate.from_json(entry) for entry in data["candidates"]),
            source=(trajectory, index),
            audited=Candidate(**data["audited"]) if "audited" in data else None,
        )


def read_rows(path: Path) -> list[StepRow]:
    """The inverse of ``to_jsonl``."""
    return [StepRow.from_json(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def to_jsonl(rows: Iterable[StepRow]) -> str:
    """The text of ``steps.jsonl``."""
    return "".join(json.dumps(row.to_json(), allow_nan=False) + "\n" for row in rows)


class Listener(Protocol):
    """Is told what a stage does, while it does it."""

    def on_dense(self, record: Record) -> None:
        """The dense model was measured."""

    def on_step(self, row: StepRow, record: Record | None) -> None:
        """A step of the run is on disk, measured or not. May come again, from another stage."""

    def on_measured(self, seconds: float) -> None:
        """A state was measured here, in so much time, not found on disk."""

    def on_scored(self, share: float) -> None:
        """This share of the present step's scoring was done since the last call."""

    def on_computed(self, source: tuple[str, int], step: Step) -> None:
        """A step was computed here: its trajectory and index, and what came of it."""

    def on_note(self, text: str) -> None:
        """Something that a person may want to know."""

    def on_warning(self, text: str) -> None:
        """Something that a person must know."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A stage's inputs. Everything is handed in; a stage looks nothing up."""

    source: ModelSource
    weights: str
    """Digest that stands for the model's weights and architecture."""
    results: Mapping[str, Path]
    """Folders of the finished stages that this one needs, by stage."""
    live: LiveModel
    trajectories: TrajectoryStore
    records: Path
    """Folder of what was measured, shared like the trajectories."""
    made_by: Mapping[str, Any]
    """Versions and device, noted with everything that is computed."""
    listener: Listener
