"""What scoring a step takes, counted without a model."""

from collections.abc import Sequence

from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate


def passes(state: PruningState, candidates: Sequence[Candidate]) -> float:
    """Forward passes of the dense model that have as many blocks as scoring the candidates.

    A candidate leaves the model's own states at the lowest block that it touches, so only what is
    above is its own.
    """
    blocks = [(layer, kind) for kind in BLOCK_KINDS for layer in state.left(kind)]
    heights = {block: height for height, block in enumerate(sorted(blocks))}
    lowest = (
        min(heights.get((cut.layer, cut.kind), len(blocks)) for cut in candidate.cuts)
        for candidate in candidates
    )
    of_all = len(blocks) + sum(len(blocks) - height for height in lowest)
    dense = sum(len(state.shape.widths(kind)) for kind in BLOCK_KINDS)
    return of_all / dense if candidates else 0.0
