"""Exact losses of all candidates of a step from one walk up the layers.

The model without a block has the model's own hidden states up to that block. So the trunk and every
candidate that has branched off below go through each block together, as one growing batch; a
candidate of several blocks leaves the trunk at the lowest, and passes the others in its own way:

    block 0   trunk
    block 1   trunk, without 0
    block 2   trunk, without 0, without 1
    ...
    loss      without 0, without 1, without 2, ...

That is half the arithmetic of one forward pass per candidate, in full batches, and each block's
weights are needed once. What lies below the piece that a step removes stays right: with memory to
spare it is kept, and the next step's walk starts there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.blocks import Block, Context
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.passes import LOSS_IN_BLOCKS
from pipeline.pruning.units import Candidate, Cut
from pipeline.scoring.kernels import fast_kernels
from pipeline.scoring.memory import Budget, too_much
from pipeline.scoring.perplexity import Windows, perplexity_of_losses, window_losses

Progress = Callable[[float], None]
"""Called with the share of a step's work that was done since the last call."""

WindowLoss = Callable[[PrunableModel, Tensor, Windows, slice], Tensor]
"""Losses of windows, float64 ``[windows]`` on the CPU: of hidden states after the last block
``[windows, tokens, hidden]``, of the windows' tokens, and of where they are among all windows."""


def next_token_loss(model: PrunableModel, hidden: Tensor, windows: Windows, _at: slice) -> Tensor:
    """The mean loss of the windows' next tokens."""
    return window_losses(model, hidden, windows.ids, windows.eos_id)


STRIDES = (2, 4, 8, 16, 32)
"""Blocks between the states that are kept for the next step: as few as memory allows."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A candidate, and where it differs from the trunk."""

    row: int
    """Its place in the list of candidates."""
    candidate: Candidate
    cuts: tuple[tuple[int, Cut], ...]
    """What becomes of blocks, lowest first, with their heights."""

    @property
    def height(self) -> int:
        """The block where it leaves the trunk."""
        return self.cuts[0][0]

    def cut_above(self, height: int) -> Cut | None:
        """What becomes of a block above; None where it is not cut."""
        return dict(self.cuts[1:]).get(height)


@dataclass(frozen=True, slots=True)
class Tile:
    """Branches (lowest first) and windows that walk together."""

    branches: Sequence[Branch]
    windows: range

    @property
    def columns(self) -> slice:
        """Where its windows are among all."""
        return slice(self.windows.start, self.windows.stop)

    @property
    def sequences(self) -> int:
        """States that its walk holds, the trunk's included."""
        return (len(self.branches) + 1) * len(self.windows)

    def halves(self) -> "list[Tile]":
        """The tile in two; nothing where it is one branch and one window."""
        if half := len(self.windows) // 2:
            low, high = self.windows[:half], self.windows[half:]
            return [Tile(self.branches, low), Tile(self.branches, high)]
        if half := len(self.branches) // 2:
            low_ones, high_ones = self.branches[:half], self.branches[half:]
            return [Tile(low_ones, self.windows), Tile(high_ones, self.windows)]
        return []


class OnePass:
    """Scores the candidates of one step after another.

    ``keep`` says whether the next step asks for the same windows and candidates, so that states
    are worth keeping. ``loss`` is what a window's loss is.
    """

    def __init__(
        self, memory_fraction: float, *, keep: bool = True, loss: WindowLoss = next_token_loss
    ) -> None:
        self.memory_fraction, self.keep, self.loss = memory_fraction, keep, loss
        self._limit: float = math.inf
        self._kept: list[_Kept] = []

    @torch.no_grad()
    def losses(
        self,
        model: PrunableModel,
        candidates: Sequence[Candidate],
        windows: Windows,
        on_progress: Progress,
    ) -> Tensor:
        """Mean loss in each window without each candidate, float64 ``[candidates, windows]``.

        As many candidates and windows walk together as fit into ``memory_fraction`` of what is
        free; where that is too much after all, half. Raises ``StageError`` where one is too much.
        """
        count, seqlen = windows.ids.shape
        budget = Budget.now(model, seqlen, self.memory_fraction, sum(k.bytes for k in self._kept))
        losses = torch.full((len(candidates), count), torch.nan, dtype=torch.float64)
        whole = Tile(_branches(model, candidates), range(count))
        tiles = [whole]
        while tiles:
            tile = tiles.pop(0)
            most = min(self._limit, budget.sequences)
            if tile.sequences > most and tile.halves():
                tiles[:0] = tile.halves()
                continue
            ids = windows.ids if tile == whole else windows.ids[tile.columns]
            share = len(tile.branches) * len(tile.windows) / losses.numel()
            progress = _TileProgress(on_progress, share)
            spare = int(most) - tile.sequences if self.keep else 0
            part = Windows(ids, windows.eos_id)
            try:
                tile_losses = self._walk(model, tile, part, budget.rows, spare, progress)
            except torch.OutOfMemoryError as error:
                if not tile.halves():
                    raise too_much("one candidate", seqlen, model.device) from error
                self._kept, self._limit = [], tile.sequences // 2
                tiles[:0] = tile.halves()
                progress.take_back()
            else:
                losses[[branch.row for branch in tile.branches], tile.columns] = tile_losses
        return losses

    def _walk(
        self,
        model: PrunableModel,
        tile: Tile,
        windows: Windows,
        rows: int,
        spare: int,
        progress: "_TileProgress",
    ) -> Tensor:
        """Losses of a tile, ``[branches, windows]``, ``rows`` sequences at a time through a block.

        ``states[0]`` is the trunk, ``states[i]`` the i-th branch from below once it has left it.
        Up to ``spare`` sequences are kept for the next walk.
        """
        ids = windows.ids.to(model.device)
        contexts = model.decoder_input(ids[:1]).contexts  # windows are full: all have the same
        hidden = model.decoder_input(ids).hidden
        states = hidden.new_empty((len(tile.branches) + 1, *hidden.shape))
        self._kept = [kept for kept in self._kept if kept.fits(windows.ids, model.blocks, tile)]
        start, there = 0, 1
        states[0] = hidden
        if self._kept:
            start, there = self._kept[-1].height, len(self._kept[-1].states)
            states[:there] = self._kept[-1].states
        keep_at = _heights_to_keep(model, tile, spare)
        work = _work(model, tile, start)
        with fast_kernels(model):
            for height, block in enumerate(model.blocks[start:], start):
                if height in keep_at and height > start:
                    below_it = model.blocks[:height]
                    self._kept.append(_Kept.of(windows.ids, below_it, tile, states[:there]))
                below = there
                while there <= len(tile.branches) and tile.branches[there - 1].height == height:
                    states[there] = states[0]
                    cut = tile.branches[there - 1].cuts[0][1]
                    if cut.width_after:
                        add_residual(states[there], block, contexts[height], rows, cut)
                    there += 1
                for whole in _uncut(tile.branches[: below - 1], height):
                    add_residual(states[whole].flatten(0, 1), block, contexts[height], rows)
                for at, branch in enumerate(tile.branches[: below - 1], 1):
                    above = branch.cut_above(height)
                    if above and above.width_after:
                        add_residual(states[at], block, contexts[height], rows, above)
                progress.add(below / work)
            losses = []
            for branch in states[1:]:
                losses.append(self.loss(model, branch, Windows(ids, windows.eos_id), tile.columns))
                progress.add(LOSS_IN_BLOCKS / work)
        return torch.stack(losses)


def _heights_to_keep(model: PrunableModel, tile: Tile, spare: int) -> Sequence[int]:
    """The blocks before which to keep states, as closely as ``spare`` sequences allow."""
    for stride in STRIDES:
        heights = range(stride, len(model.blocks), stride)
        needed = sum(1 + sum(b.height < h for b in tile.branches) for h in heights)
        if needed * len(tile.windows) <= spare:
            return heights
    return ()


def _branches(model: PrunableModel, candidates: Sequence[Candidate]) -> tuple[Branch, ...]:
    """The candidates as branches, lowest first."""
    heights = {(block.kind, block.layer): at for at, block in enumerate(model.blocks)}
    branches = []
    for row, candidate in enumerate(candidates):
        cuts = (
            (heights[cut.kind, cut.layer], cut)
            for cut in candidate.cuts
            if (cut.kind, cut.layer) in heights
        )
        lowest_first = tuple(sorted(cuts, key=lambda placed: placed[0]))
        branches.append(Branch(row, candidate, lowest_first))
    return tuple(sorted(branches, key=lambda branch: branch.height))


def _uncut(branches: Sequence[Branch], height: int) -> list[slice]:
    """The trunk, and the branches after it that a block is not cut for, as runs of neighbours."""
    ends = [at for at, b in enumerate(branches, 1) if b.cut_above(height)]
    starts = [0, *(end + 1 for end in ends)]
    runs = zip(starts, [*ends, len(branches) + 1], strict=True)
    return [slice(start, end) for start, end in runs if start < end]


def add_residual(
    sequences: Tensor, block: Block, context: Context, rows: int, cut: Cut | None = None
) -> None:
    """Run ``[sequences, tokens, hidden]`` through a block in place, ``rows`` at a time."""
    for part in sequences.split(rows):
        part.add_(block.residual(part, context, cut))


@dataclass(frozen=True, slots=True)
class _Kept:
    """The trunk and its branches below a block, from the last walk."""

    ids: Tensor
    below: tuple[tuple[str, int, int, int | None], ...]
    branches: tuple[Candidate, ...]
    states: Tensor

    @classmethod
    def of(cls, ids: Tensor, below: Sequence[Block], tile: Tile, states: Tensor) -> "_Kept":
        branches = tuple(branch.candidate for branch in tile.branches[: len(states) - 1])
        return cls(ids, _described(below), branches, states.clone())

    @property
    def height(self) -> int:
        return len(self.below)

    @property
    def bytes(self) -> int:
        return self.states.numel() * self.states.element_size()

    def fits(self, ids: Tensor, blocks: Sequence[Block], tile: Tile) -> bool:
        """Whether a walk over ``tile`` comes to these very states."""
        branches = tuple(b.candidate for b in tile.branches if b.height < self.height)
        return (
            self.ids is ids
            and self.below == _described(blocks[: self.height])
            and self.branches == branches
        )


def _described(blocks: Sequence[Block]) -> tuple[tuple[str, int, int, int | None], ...]:
    return tuple((block.kind, block.layer, block.width, block.inside) for block in blocks)


def _work(model: PrunableModel, tile: Tile, start: int) -> int:
    """What a walk from ``start`` costs, in blocks."""
    above = [len(model.blocks) - max(start, branch.height + 1) for branch in tile.branches]
    return len(model.blocks) - start + sum(above) + LOSS_IN_BLOCKS * len(tile.branches)


class _TileProgress:
    """Progress of a tile that can be taken back."""

    def __init__(self, on_progress: Progress, share: float) -> None:
        self.on_progress, self.share = on_progress, share
        self.done = 0.0

    def add(self, part: float) -> None:
        self.on_progress(part * self.share)
        self.done += part * self.share

    def take_back(self) -> None:
        self.on_progress(-self.done)


@torch.no_grad()
def perplexity(
    model: PrunableModel, windows: Windows, on_progress: Progress = lambda _: None
) -> float | None:
    """Perplexity of the live model as it is, one window at a time."""
    losses = []
    for ids in windows.ids.to(model.device).split(1):
        decoder = model.decoder_input(ids)
        hidden = decoder.hidden
        with fast_kernels(model):
            for block, context in zip(model.blocks, decoder.contexts, strict=True):
                hidden = block(hidden, context)
            losses.append(window_losses(model, hidden, ids, windows.eos_id))
        on_progress(1 / len(windows.ids))
    return perplexity_of_losses(torch.cat(losses))
