"""Losses of many states of one model, from walks that share what the states have in common.

Two states have the same hidden states up to the first block in which they differ. So those that
are evaluated together go up the blocks together, sorted by what is left of each block:

    block 0   all of them, once
    block 1   those that keep it, once; those that lose a group of it, once
    ...
    loss      each by itself

Every block's weights are needed once. A state passes a block in batches of its own: its losses do
not depend on which others walk with it, so a search that was stopped goes on with the same numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from pipeline.models.prunable import PrunableModel
from pipeline.pruning.passes import LOSS_IN_BLOCKS
from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Cut
from pipeline.scoring.kernels import fast_kernels
from pipeline.scoring.memory import Budget, too_much
from pipeline.scoring.one_pass import Progress, WindowLoss, add_residual
from pipeline.scoring.perplexity import Windows

Levels = tuple[int, ...]
"""The width of every block of a model in the order in which they run, 0 where it is gone."""


def levels_of(state: PruningState) -> Levels:
    """What is left of each block, from the input to the output; equal for equal live models."""
    left = {kind: set(state.left(kind)) for kind in BLOCK_KINDS}
    return tuple(
        state.widths(kind)[layer] if layer in left[kind] else 0
        for layer in range(len(state.shape.layers))
        for kind in BLOCK_KINDS
    )


@dataclass(frozen=True, slots=True)
class _Tile:
    """States (sorted) and windows that walk together."""

    rows: Sequence[int]
    windows: range

    @property
    def sequences(self) -> int:
        """Hidden states that its walk holds at most, the embedded windows included."""
        return (len(self.rows) + 1) * len(self.windows)

    def halves(self) -> "list[_Tile]":
        """The tile in two; nothing where it is one state and one window."""
        if half := len(self.rows) // 2:
            return [_Tile(self.rows[:half], self.windows), _Tile(self.rows[half:], self.windows)]
        if half := len(self.windows) // 2:
            return [_Tile(self.rows, self.windows[:half]), _Tile(self.rows, self.windows[half:])]
        return []


@torch.no_grad()
def losses_of_states(
    model: PrunableModel,
    states: Sequence[PruningState],
    windows: Windows,
    which: range,
    loss: WindowLoss,
    memory_fraction: float,
    on_progress: Progress = lambda _: None,
) -> Tensor:
    """Losses of states in the windows ``which``, float64 ``[states, len(which)]``.

    ``model`` has all that any of the states has; it is not changed. As many states walk together as
    fit into ``memory_fraction`` of what is free. Raises ``StageError`` where one is too much.
    """
    seqlen = windows.ids.shape[1]
    budget = Budget.now(model, seqlen, memory_fraction, 0)
    levels = [_levels_in(model, state) for state in states]
    order = sorted(range(len(states)), key=lambda row: levels[row])
    losses = torch.full((len(states), len(which)), torch.nan, dtype=torch.float64)
    tiles, limit = [_Tile(order, which)], budget.sequences
    while tiles:
        tile = tiles.pop(0)
        if tile.sequences > limit and tile.halves():
            tiles[:0] = tile.halves()
            continue
        try:
            found = _walk(model, [levels[row] for row in tile.rows], windows, tile, loss, budget)
        except torch.OutOfMemoryError as error:
            if not tile.halves():
                raise too_much("one state", seqlen, model.device) from error
            limit = tile.sequences // 2
            tiles[:0] = tile.halves()
            continue
        columns = slice(tile.windows.start - which.start, tile.windows.stop - which.start)
        losses[list(tile.rows), columns] = found
        on_progress(len(tile.rows) * len(tile.windows) / losses.numel())
    return losses


def _levels_in(model: PrunableModel, state: PruningState) -> Levels:
    """What a state leaves of the blocks that the model has."""
    left = {kind: set(state.left(kind)) for kind in BLOCK_KINDS}
    return tuple(
        state.widths(block.kind)[block.layer] if block.layer in left[block.kind] else 0
        for block in model.blocks
    )


def _walk(
    model: PrunableModel,
    levels: Sequence[Levels],
    windows: Windows,
    tile: _Tile,
    loss: WindowLoss,
    budget: Budget,
) -> Tensor:
    """Losses of sorted states, float64 ``[states, windows]``."""
    columns = slice(tile.windows.start, tile.windows.stop)
    ids = windows.ids[columns].to(model.device)
    contexts = model.decoder_input(ids[:1]).contexts  # windows are full: all have the same
    alike = [(model.decoder_input(ids).hidden, range(len(levels)))]
    with fast_kernels(model):
        for height, block in enumerate(model.blocks):
            apart = []
            for hidden, members in alike:
                for level, rows in _runs([own[height] for own in levels], members):
                    own = hidden if rows.stop == members.stop else hidden.clone()
                    if level:
                        cut = None if level == block.width else Cut(block.kind, block.layer, level)
                        add_residual(own, block, contexts[height], budget.rows, cut)
                    apart.append((own, rows))
            alike = apart
        found = torch.empty((len(levels), len(tile.windows)), dtype=torch.float64)
        for hidden, members in alike:
            own_losses = loss(model, hidden, Windows(ids, windows.eos_id), columns)
            found[members.start : members.stop] = own_losses
    return found


def _runs(levels: Sequence[int], members: range) -> Iterator[tuple[int, range]]:
    """Neighbours among ``members`` that a block leaves the same width."""
    for level, run in groupby(members, levels.__getitem__):
        rows = list(run)
        yield level, range(rows[0], rows[-1] + 1)


def passes_of_states(states: Sequence[PruningState]) -> float:
    """Forward passes of the dense model that take as long as evaluating the states, about."""
    levels = sorted(levels_of(state) for state in states)
    blocks = sum(width > 0 for kind in BLOCK_KINDS for width in states[0].shape.widths(kind))
    walked = 0
    before: Levels | None = None
    for own in levels:
        same = 0 if before is None else _common(own, before)
        walked += sum(level > 0 for level in own[same:]) + LOSS_IN_BLOCKS
        before = own
    return walked / (blocks + LOSS_IN_BLOCKS)


def _common(one: Levels, other: Levels) -> int:
    """Blocks from the input on that two states have alike."""
    pairs = enumerate(zip(one, other, strict=True))
    return next((height for height, (mine, theirs) in pairs if mine != theirs), len(one))
