"""What every stage is given, besides its configuration and a folder of its own."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.models.loading import LiveModel
from pipeline.models.source import ModelSource
from pipeline.pruning.state import Candidate
from pipeline.pruning.trajectory import ScoredCandidate, TrajectoryStore


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
    """The trajectory (its key) and the index there. Not written into the line."""

    def to_json(self) -> dict[str, Any]:
        """The line's object."""
        return {
            "step": self.step,
            "dimension": self.dimension,
            "unit": self.chosen.unit,
            "layer": self.chosen.layer,
            "width_after": self.chosen.width_after,
            "importance": self.importance,
            "ratio_percent": self.ratio_percent,
            "params": self.params,
            "candidates": [
                {
                    "unit": s.candidate.unit,
                    "layer": s.candidate.layer,
                    "width_after": s.candidate.width_after,
                    "ppl": s.ppl,
                }
                for s in self.scored
            ],
        }


def to_jsonl(rows: Iterable[StepRow]) -> str:
    """The text of ``steps.jsonl``."""
    return "".join(json.dumps(row.to_json(), allow_nan=False) + "\n" for row in rows)


class Listener(Protocol):
    """Is told what a stage does, while it does it."""

    def on_step(self, row: StepRow) -> None:
        """A step of the run is on disk."""

    def on_scored(self, share: float) -> None:
        """This share of the present step's scoring was done since the last call."""

    def on_computed(self, source: tuple[str, int], candidates: int) -> None:
        """A step was computed here: its trajectory and index, and how many candidates it scored."""

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
    made_by: Mapping[str, Any]
    """Versions and device, noted with everything that is computed."""
    listener: Listener
