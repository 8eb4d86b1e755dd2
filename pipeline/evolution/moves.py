"""Moves between states of one ratio: what one layer loses, another one of its kind gets back."""

import random
from collections.abc import Iterator

from pipeline.evolution.base import Space
from pipeline.pruning.shape import BlockKind
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import UNITS, Unit


def moved(state: PruningState, space: Space, draw: random.Random) -> PruningState | None:
    """The state after a move by chance; None where there is none.

    One group goes from a layer to another, or a block that is gone comes back for another one, with
    the width that that one had. Both layers have the same shape, so not one parameter is lost.
    """
    units = [UNITS[name] for name in space.units]
    for unit in draw.sample(units, len(units)):
        pairs = _exchanges(state, unit, space.units[unit.name], draw)
        if pair := next(pairs, None):
            return pair
    return None


def _exchanges(
    state: PruningState, unit: Unit, size: int, draw: random.Random
) -> Iterator[PruningState]:
    """States after a move of one unit, in an order by chance."""
    if any(state.shape.why_barred(name) for name in unit.parts) or len(unit.kinds) > 1:
        return
    (kind,) = unit.kinds
    if unit.is_whole:
        back, away = sorted(state.removed(kind)), state.left(kind)
    else:
        ranges = {layer: width_range(state, unit, size, layer) for layer in state.left(kind)}
        widths = state.widths(kind)
        back = [i for i, (_, full) in ranges.items() if 0 < widths[i] <= full - size]
        away = [i for i, (least, _) in ranges.items() if 0 < least <= widths[i] - size]
    for layer in draw.sample(back, len(back)):
        alike = [
            other
            for other in away
            if other != layer and state.shape.block(kind, other) == state.shape.block(kind, layer)
        ]
        if alike:
            other = draw.choice(alike)
            if unit.is_whole:
                yield _exchanged(state, kind, layer, other)
            else:
                yield resized(resized(state, kind, layer, size), kind, other, -size)


def resized(state: PruningState, kind: BlockKind, layer: int, by: int) -> PruningState:
    """With so many channels or experts more in a block, or less."""
    widths = list(state.widths(kind))
    widths[layer] += by
    return state.with_widths(kind, widths)


def _exchanged(state: PruningState, kind: BlockKind, back: int, away: int) -> PruningState:
    """With one block back in the place of another one, as wide as that was."""
    widths = list(state.widths(kind))
    widths[back], widths[away] = widths[away], widths[back]
    removed = [i for i in state.removed(kind) if i != back]
    return state.with_widths(kind, widths).with_removed(kind, [*removed, away])


def width_range(state: PruningState, unit: Unit, size: int, layer: int) -> tuple[int, int]:
    """The least and the full width that a unit's block may have, in whole groups from the full one.

    Both are 0 where the block is gone or is no such unit.
    """
    kind: BlockKind
    (kind,) = unit.kinds
    block = state.shape.block(kind, layer)
    if block is None or layer not in state.left(kind) or unit.name not in block.units(kind):
        return 0, 0
    groups = (block.width - block.least(unit.name)) // size
    return block.width - groups * size, block.width
