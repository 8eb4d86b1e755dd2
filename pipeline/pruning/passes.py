"""What scoring a step takes, counted without a model."""

from collections.abc import Sequence

from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate

LOSS_IN_BLOCKS = 4
"""What a loss costs, in blocks, for the time left."""
LIKELY_HEIGHT = 0.75
"""Where in a model the piece lies that goes first, as a share of its layers: most lie high."""


def passes(state: PruningState, candidates: Sequence[Candidate], from_layer: float = 0) -> float:
    """Forward passes of the dense model that take as long as scoring the candidates, about.

    A candidate leaves the model's own states at the lowest block that it touches, so only what is
    above is its own; and what lies below ``from_layer``, where the last step took something, is
    known from that step.
    """
    if not candidates:
        return 0.0
    blocks = sorted((layer, kind) for kind in BLOCK_KINDS for layer in state.left(kind))
    heights = {block: height for height, block in enumerate(blocks)}
    start = sum(layer < from_layer for layer, _ in blocks)
    lowest = (
        min(heights.get((cut.layer, cut.kind), len(blocks)) for cut in candidate.cuts)
        for candidate in candidates
    )
    above = sum(len(blocks) - max(start, height) + LOSS_IN_BLOCKS for height in lowest)
    dense = sum(len(state.shape.widths(kind)) for kind in BLOCK_KINDS)
    return (len(blocks) - start + above) / (dense + LOSS_IN_BLOCKS)
