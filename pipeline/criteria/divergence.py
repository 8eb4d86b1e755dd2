"""Divergence from the dense model's output, instead of perplexity (FinerCut, arXiv 2405.18218)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.criteria.base import CALIBRATION, Criterion, Material, Need
from pipeline.files import Json
from pipeline.pruning.choice import Scorer
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate
from pipeline.pruning.units import Candidate

if TYPE_CHECKING:
    from pipeline.scoring.losses import Losses
    from pipeline.settings.core import Config


@dataclass(frozen=True)
class Divergence(Criterion):
    """The Jensen-Shannon divergence of next-token distributions, the mean over all tokens.

    One process scores, whatever ranks there are.
    """

    name: str = "js_divergence"
    needs: frozenset[Need[Any]] = frozenset({CALIBRATION})

    def identity(self, config: "Config") -> dict[str, Json]:  # noqa: ARG002
        """Its name."""
        return {"criterion": self.name}

    def scorer(self, config: "Config", material: Material) -> Scorer:
        """Compares with the outputs of the dense model, which are kept in memory."""
        return _DivergenceScorer(self.name, material, config.scoring.memory_fraction)


class _DivergenceScorer(Scorer):
    def __init__(self, criterion: str, material: Material, memory_fraction: float) -> None:
        self.criterion, self.material = criterion, material
        self.memory_fraction = memory_fraction
        self._losses: Losses | None = None

    def scores(
        self, state: PruningState, candidates: Sequence[Candidate]
    ) -> Sequence[ScoredCandidate]:
        windows = self.material.of(CALIBRATION)
        losses = self._opened(state)(state, candidates, windows, self.material.on_progress)
        means = [row.mean().item() for row in losses]
        return [
            ScoredCandidate(candidate, mean if math.isfinite(mean) else None)
            for candidate, mean in zip(candidates, means, strict=True)
        ]

    def _opened(self, state: PruningState) -> "Losses":
        """Losses against the dense model; its outputs are computed once."""
        from pipeline.scoring.divergence import DivergenceLoss
        from pipeline.scoring.losses import LocalLosses

        if self._losses is None:
            live, windows = self.material.live, self.material.of(CALIBRATION)
            dense = live.at(live.cut(PruningState.dense(state.shape)))
            loss = DivergenceLoss.of(dense, windows, self.memory_fraction)
            self._losses = LocalLosses(live, self.memory_fraction, keep=True, loss=loss)
        return self._losses
