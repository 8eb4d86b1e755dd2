"""What scoring a step takes, counted without a model."""

from collections.abc import Sequence

from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate

LOSS_IN_BLOCKS = 4
"""What a loss costs, in blocks, for the time left."""


def costs(
    state: PruningState, candidates: Sequence[Candidate], from_layer: float = 0
) -> tuple[int, list[int]]:
    """What a walk without candidates costs, in blocks, and what each candidate adds to it.

    A candidate leaves the model's own states at the lowest block that it touches: it adds that one,
    those above it, and the loss. What lies below ``from_layer``, where the last step took
    something, is known from that step.
    """
    blocks = sorted((layer, kind) for kind in BLOCK_KINDS for layer in state.left(kind))
    heights = {block: height for height, block in enumerate(blocks)}
    start = sum(layer < from_layer for layer, _ in blocks)
    lowest = (
        min(heights.get((cut.layer, cut.kind), len(blocks)) for cut in candidate.cuts)
        for candidate in candidates
    )
    above = [len(blocks) - max(start, height) + LOSS_IN_BLOCKS for height in lowest]
    return len(blocks) - start, above


def passes(state: PruningState, candidates: Sequence[Candidate], from_layer: float = 0) -> float:
    """Forward passes of the dense model that take as long as scoring the candidates, about."""
    if not candidates:
        return 0.0
    trunk, above = costs(state, candidates, from_layer)
    dense = sum(len(state.shape.widths(kind)) for kind in BLOCK_KINDS)
    return (trunk + sum(above)) / (dense + LOSS_IN_BLOCKS)
