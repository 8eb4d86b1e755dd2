"""Moves between states of one ratio: what one layer loses, another one of its kind gets back."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.evolution.base import Space, width_range
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
        gone = [i for i in range(len(state.shape.layers)) if _is_gone(state, kind, i)]
        back, away = gone, state.left(kind)
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


def _is_gone(state: PruningState, kind: BlockKind, layer: int) -> bool:
    removed = state.removed_attn if kind == "attn" else state.removed_mlp
    return layer in removed


def resized(state: PruningState, kind: BlockKind, layer: int, by: int) -> PruningState:
    """With so many channels or experts more in a block, or less."""
    widths = list(state.widths(kind))
    widths[layer] += by
    return with_widths(state, kind, widths)


def with_widths(state: PruningState, kind: BlockKind, widths: Sequence[int]) -> PruningState:
    """With other widths of all blocks of a kind."""
    if kind == "attn":
        return replace(state, attn_widths=tuple(widths))
    return replace(state, mlp_widths=tuple(widths))


def _exchanged(state: PruningState, kind: BlockKind, back: int, away: int) -> PruningState:
    """With one block back in the place of another one, as wide as that was."""
    widths = list(state.widths(kind))
    widths[back], widths[away] = widths[away], widths[back]
    changed = with_widths(state, kind, widths)
    if kind == "attn":
        kept = tuple(i for i in state.removed_attn if i != back)
        return replace(changed, removed_attn=(*kept, away))
    kept = tuple(i for i in state.removed_mlp if i != back)
    return replace(changed, removed_mlp=(*kept, away))
