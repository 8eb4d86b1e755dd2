"""Taylor+: the first-order effect of a whole piece on the loss (arXiv 2402.02834)."""

from pipeline.criteria.base import GRADIENTS, Criterion, ScoredBy


def taylor() -> Criterion:
    """The sum of abs(w g) over all weights of a piece, norms included, of the dense model."""
    return ScoredBy(
        "taylor",
        lambda material, state, candidates: [
            sum(
                material.of(GRADIENTS).of(cut.block, "whole").item()
                for cut in each.cuts
                if state.shape.block(cut.kind, cut.layer)
            )
            for each in candidates
        ],
        needs=frozenset({GRADIENTS}),
    )
