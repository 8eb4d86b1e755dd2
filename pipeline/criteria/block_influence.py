"""Block Influence: how far a piece turns the hidden states (ShortGPT, arXiv 2403.03853)."""

from pipeline.criteria.base import STATISTICS, Criterion, ScoredBy


def block_influence() -> Criterion:
    """1 - cos(x, x + f(x)), the mean over all tokens, of the dense model."""
    return ScoredBy(
        "block_influence",
        lambda material, _, candidates: [
            material.of(STATISTICS).of(each.piece, "influence").item() for each in candidates
        ],
        needs=frozenset({STATISTICS}),
    )
