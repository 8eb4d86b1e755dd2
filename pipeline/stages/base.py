"""What every stage is given, besides its configuration and a folder of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.distributed.ranks import Leader
from pipeline.measure.record import Record
from pipeline.models.loading import LiveModel
from pipeline.models.source import ModelSource
from pipeline.pruning.records import StepRecord
from pipeline.pruning.steps import Step
from pipeline.pruning.trajectory import TrajectoryStore


class Listener(Protocol):
    """Is told what a stage does, while it does it."""

    def on_dense(self, record: Record) -> None:
        """The dense model was measured."""

    def on_step(self, row: StepRecord, record: Record | None) -> None:
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
    leader: Leader | None = None
    """The ranks that share the scoring; None where this process scores alone."""
