"""The importance of channels and heads: what they are ordered by, of those that would go."""

from collections.abc import Sequence

from pipeline.criteria.base import CHANNEL_SCORES, Criterion, Material, ScoredBy
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate


def of_channels(name: str) -> Criterion:
    """The mean score of the groups at the tail that a candidate cuts off; ``name`` is the order."""
    return ScoredBy(name, _scores, needs=frozenset({CHANNEL_SCORES}))


def _scores(
    material: Material, state: PruningState, candidates: Sequence[Candidate]
) -> list[float]:
    scores = material.of(CHANNEL_SCORES)
    means = []
    for candidate in candidates:
        for cut in candidate.cuts:
            block = state.shape.block(cut.kind, cut.layer)
            assert block
            first = cut.width_after // block.group_width
            end = state.widths(cut.kind)[cut.layer] // block.group_width
            means.append(scores[cut.block][first:end].mean().item())
    return means
