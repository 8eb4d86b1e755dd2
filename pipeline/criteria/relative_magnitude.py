"""Relative magnitude: how much a piece adds to the hidden states (arXiv 2312.09299)."""

from pipeline.criteria.base import STATISTICS, Criterion, ScoredBy


def relative_magnitude() -> Criterion:
    """||f(x)|| / ||x + f(x)||, the mean over all tokens, of the dense model."""
    return ScoredBy(
        "relative_magnitude",
        lambda material, _, candidates: [
            material.of(STATISTICS).of(each.piece, "relative_magnitude").item()
            for each in candidates
        ],
        needs=frozenset({STATISTICS}),
    )
