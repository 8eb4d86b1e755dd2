"""Mag+: how large the weights of a whole piece are (arXiv 2402.02834)."""

from collections.abc import Sequence

from pipeline.criteria.base import Criterion, Material, ScoredBy
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate


def magnitude() -> Criterion:
    """The sum of abs(w) over all weights of a piece, norms included."""
    return ScoredBy("magnitude", _scores)


def _scores(
    material: Material, state: PruningState, candidates: Sequence[Candidate]
) -> list[float]:
    blocks = {block.name: block for block in material.live.at(material.live.cut(state)).blocks}
    return [
        sum(
            parameter.detach().double().abs().sum().item()
            for cut in candidate.cuts
            if (block := blocks.get(cut.block))
            for parameter in block.parameters()
        )
        for candidate in candidates
    ]
