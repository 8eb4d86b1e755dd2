"""What scores candidates: the lowest goes first."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pipeline.files import Json
from pipeline.pruning.choice import Scorer
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate
from pipeline.pruning.units import Candidate

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.distributed.ranks import Leader
    from pipeline.models.loading import LiveModel
    from pipeline.scoring.perplexity import Windows
    from pipeline.settings.core import Config
    from pipeline.statistics.activations import Statistics
    from pipeline.statistics.gradients import Gradients

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Need(Generic[T]):
    """Something that a criterion asks for before it scores; ``T`` is what it then gets."""

    name: str


CALIBRATION: "Need[Windows]" = Need("calibration")
"""The calibration windows of the dimension that is walked."""
STATISTICS: "Need[Statistics]" = Need("statistics")
"""What one pass over the calibration windows for blocks says of the dense model."""
GRADIENTS: "Need[Gradients]" = Need("gradients")
"""The dense model's gradients on the calibration windows for blocks."""
CHANNEL_SCORES: "Need[Mapping[str, Tensor]]" = Need("channel_scores")
"""By the block's name what its channels were ordered by, ``[groups]``, the highest first."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a criterion works with during one walk."""

    live: "LiveModel"
    """``live.at(state)`` is the model in a state."""
    supplied: Mapping[Need[Any], Any]
    """What it asked for."""
    on_progress: Callable[[float], None] = lambda _: None
    """To be called with the share of a step's work that was done since the last call. They come to
    more or less than 1 where the amount is not known before."""
    leader: "Leader | None" = None
    """The ranks that share the work; None where this process works alone."""

    def of(self, need: Need[T]) -> T:
        """What was asked for."""
        return cast("T", self.supplied[need])


class Criterion(ABC):
    """How candidates are scored. Knows a live model, nothing of stages, files or jobs."""

    name: str
    """What its scores are called in files, and what other criteria's scores are not mixed with."""
    needs: frozenset[Need[Any]] = frozenset()
    """What it asks for."""

    @abstractmethod
    def identity(self, config: "Config") -> dict[str, Json]:
        """What decides its scores, besides the model and what it asks for, as plain JSON."""

    @abstractmethod
    def scorer(self, config: "Config", material: Material) -> Scorer:
        """What scores the steps of one walk."""


Scores = Callable[[Material, PruningState, Sequence[Candidate]], Sequence[float | None]]
"""The scores of candidates in a state, in their order; None, or a number that is not finite, for a
candidate that cannot go."""


@dataclass(frozen=True)
class ScoredBy(Criterion):
    """A criterion that is one function: every candidate of a step is scored by it."""

    name: str
    scores: Scores
    settings: Mapping[str, Json] = field(default_factory=dict)
    """What decides the scores, as plain JSON, e.g. a seed."""
    needs: frozenset[Need[Any]] = frozenset()

    def identity(self, config: "Config") -> dict[str, Json]:  # noqa: ARG002
        """Its name and its settings."""
        return {"criterion": self.name, **self.settings}

    def scorer(self, config: "Config", material: Material) -> Scorer:  # noqa: ARG002
        """Calls the function."""
        return _FunctionScorer(self.name, self.scores, material)


class _FunctionScorer(Scorer):
    def __init__(self, criterion: str, function: Scores, material: Material) -> None:
        self.criterion, self.function, self.material = criterion, function, material

    def scores(
        self, state: PruningState, candidates: Sequence[Candidate]
    ) -> Sequence[ScoredCandidate]:
        values = self.function(self.material, state, candidates)
        return [
            ScoredCandidate(candidate, None if value is None or not math.isfinite(value) else value)
            for candidate, value in zip(candidates, values, strict=True)
        ]
