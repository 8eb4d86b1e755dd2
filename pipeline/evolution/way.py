"""The steps by which a run comes to the state that a search found."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.evolution.base import Space
from pipeline.pruning.phases import STANDARD
from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate, Unit


def leading(states: Sequence[PruningState], found: PruningState) -> int:
    """How many of the states, from the first one on, can still become the one that was found."""
    kept = {kind: set(found.left(kind)) for kind in BLOCK_KINDS}
    attn, mlp = (
        tuple(width if i in kept[kind] else 0 for i, width in enumerate(found.widths(kind)))
        for kind in BLOCK_KINDS
    )
    end = replace(found, attn_widths=attn, mlp_widths=mlp)  # blocks that go may have any width
    return next((at for at, each in enumerate(states) if not each.can_become(end)), len(states))


def way(
    state: PruningState, found: PruningState, space: Space, dimensions: Sequence[str]
) -> Iterator[tuple[str, Candidate]]:
    """What goes from ``state`` to ``found``, a block or a group at a time, and its dimension.

    The dimensions come in the order that is given, layers from the input to the output.
    """
    for dimension in dict.fromkeys([*dimensions, *STANDARD]):
        for unit in STANDARD[dimension]:
            for candidate in _removals(state, found, unit, space.units.get(unit.name)):
                state = state.without(candidate)
                yield dimension, candidate


def _removals(
    state: PruningState, found: PruningState, unit: Unit, size: int | None
) -> Iterator[Candidate]:
    (kind,) = unit.kinds
    for layer in state.left(kind):
        is_kept = layer in found.left(kind)
        if unit.is_whole:
            if not is_kept:
                yield Candidate(unit, layer, 0)
            continue
        block = state.shape.block(kind, layer)
        if not is_kept or block is None or unit.name not in block.units(kind):
            continue
        width, end = state.widths(kind)[layer], found.widths(kind)[layer]
        while width > end:
            width = max(end, width - (size or width))
            yield Candidate(unit, layer, width)
