"""Through the dense and the pruned model side by side, one block after the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.models.blocks import Block
from pipeline.models.prunable import PrunableModel
from pipeline.models.tensors import wide
from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.recovery.base import Examples
from pipeline.recovery.compensate import CompensateConfig
from pipeline.recovery.compensate.closed_form import (
    AbsoluteSums,
    NormalEquations,
    copied,
    correct,
    divide,
)
from pipeline.scoring.kernels import fast_kernels
from pipeline.scoring.memory import free_bytes

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}
"""Tokens that go through a block at a time."""
SQUARES = 4
"""Float64 matrices as large as the widest Gram matrix that are in memory with a regression."""


@dataclass
class Changed:
    """Weights of the blocks that are left, by name, in CPU memory."""

    cut: dict[str, Tensor] = field(default_factory=dict)
    """As they were."""
    scaled: dict[str, Tensor] = field(default_factory=dict)
    """Divided by the factors of the removed blocks before them."""
    fitted: dict[str, Tensor] = field(default_factory=dict)
    """With what the regressions changed."""
    factors: dict[str, float] = field(default_factory=dict)
    """Of the removed blocks, by their names."""

    def mixed(self, share: float) -> dict[str, Tensor]:
        """With ``share`` of what the regressions changed."""
        return {name: each.lerp(self.fitted[name], share) for name, each in self.scaled.items()}


def usable(examples: Examples) -> Tensor:
    """Tokens that count, bool ``[examples, tokens]``.

    Not padding, and not the first of a sequence: its hidden states are so large in many models that
    it would be all that counts.
    """
    places = torch.arange(examples.ids.shape[1])
    return (places < examples.lengths[:, None].cpu()) & (places > 0)


def fitted_widths(state: PruningState, how: CompensateConfig) -> dict[str, int]:
    """The blocks whose output layers get a regression, and how many inputs these have.

    Mixtures of experts have no such layer, and stay as they are.
    """
    if how.mode == "scalar":
        return {}
    everywhere = (how.streams, how.blocks) == ("sequential", "all")
    dense, widths, precedes_removed = state.shape, {}, False
    for layer in reversed(range(len(dense.layers))):
        for kind in reversed(BLOCK_KINDS):
            block = dense.block(kind, layer)
            if layer in state.left(kind):
                width = state.widths(kind)[layer]
                is_due = everywhere or precedes_removed or width < dense.widths(kind)[layer]
                if is_due and block and not block.mixture:
                    widths[f"{kind}.{layer}"] = width
                precedes_removed = False
            elif block:
                precedes_removed = True
    return widths


@torch.no_grad()
def walk(
    dense: PrunableModel,
    pruned: PrunableModel,
    examples: Examples,
    how: CompensateConfig,
    done: Callable[[int], None],
) -> Changed:
    """Compensate ``pruned``, lowest block first; ``done`` is told how many of its blocks are.

    The hidden states of all examples are in memory meanwhile: on the device, else on the CPU.
    """
    changed, factor = Changed(), 1.0
    kept = {block.name: block for block in pruned.blocks}
    fitted, is_sequential = fitted_widths(pruned.state, how), how.streams == "sequential"
    with fast_kernels(dense), fast_kernels(pruned):
        streams = _Streams(dense, pruned, examples)
        for block, removed in _runs(dense.blocks, kept):
            if block:
                own = kept[block.name]
                changed.cut |= copied(own)
                if factor != 1:
                    divide(own, factor)
                changed.scaled |= copied(own)
                if own.name in fitted and not is_sequential:
                    streams.follow_dense(factor)
                streams.pass_dense(block)
            for each in removed:
                sums = AbsoluteSums(dense.hidden_size, dense.device)
                streams.pass_dense(each, sums)
                if how.mode != "ls":
                    changed.factors[each.name] = sums.ratio
                    factor *= sums.ratio
            if block:
                if own.name in fitted:
                    correct(own, streams.equations(own, factor).solve(how.damping))
                if fitted and is_sequential:
                    streams.pass_pruned(own)
                changed.fitted |= copied(own)
                done(list(kept).index(block.name) + 1)
    return changed


def _runs(
    blocks: Sequence[Block], kept: Mapping[str, Block]
) -> Iterator[tuple[Block | None, list[Block]]]:
    """Each dense block that is kept with the removed ones behind it; None: those before all."""
    block: Block | None = None
    removed: list[Block] = []
    for each in blocks:
        if each.name in kept:
            yield block, removed
            block, removed = each, []
        else:
            removed.append(each)
    yield block, removed


class _Streams:
    """The hidden states of all examples in both models, ``[examples, tokens, hidden]`` in parts."""

    def __init__(self, dense: PrunableModel, pruned: PrunableModel, examples: Examples) -> None:
        self.device = dense.device
        ids = examples.ids.to(self.device)
        rows = max(1, TOKENS_AT_ONCE[self.device.type] // ids.shape[1])
        self.counted = usable(examples).to(self.device).split(rows)
        place = _place(dense, ids)
        self.dense = [dense.decoder_input(part).hidden.to(place) for part in ids.split(rows)]
        self.pruned = [part.clone() for part in self.dense]
        # without a mask all examples have the same context: padding on the right is never seen
        self.contexts = {
            id(block): context
            for model in (dense, pruned)
            for block, context in zip(
                model.blocks, model.decoder_input(ids[:1]).contexts, strict=True
            )
        }

    def pass_dense(self, block: Block, sums: AbsoluteSums | None = None) -> None:
        """Bring the dense states behind a block; ``sums`` gets them before and after."""
        for part, counted in zip(self.dense, self.counted, strict=True):
            before = part.to(self.device)
            after = block(before, self.contexts[id(block)])
            if sums:
                sums.add(before[counted], after[counted])
            part.copy_(after)

    def pass_pruned(self, block: Block) -> None:
        """Bring the pruned states behind a block."""
        for part in self.pruned:
            part.copy_(block(part.to(self.device), self.contexts[id(block)]))

    def follow_dense(self, factor: float) -> None:
        """Let the pruned states be the dense ones, divided."""
        for part, of_dense in zip(self.pruned, self.dense, strict=True):
            part.copy_(of_dense / factor)

    def equations(self, block: Block, factor: float) -> NormalEquations:
        """What is missing behind a block of the pruned model, over its output layer's inputs.

        The dense states are behind the same block and the removed ones after it already.
        """
        output = block.output
        has_bias = output.bias is not None
        equations = NormalEquations(output.in_features + has_bias, output.out_features, self.device)
        for part, of_dense, counted in zip(self.pruned, self.dense, self.counted, strict=True):
            seen: list[Tensor] = []
            with block.observed(seen.append):
                after = block(part.to(self.device), self.contexts[id(block)])
            (inputs,) = (wide(each[counted]) for each in seen)
            aim = wide(of_dense.to(self.device)[counted]) / factor
            if has_bias:
                inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
            equations.add(inputs, aim - wide(after[counted]))
        return equations


def _place(dense: PrunableModel, ids: Tensor) -> torch.device:
    """Where the hidden states of both models fit."""
    states = 2 * ids.numel() * dense.hidden_size * dense.model.dtype.itemsize
    widest = max(block.width for block in dense.blocks if not block.is_mixture)
    working = 8 * SQUARES * widest**2 + 16 * TOKENS_AT_ONCE[ids.device.type] * widest
    return ids.device if states + working < free_bytes(ids.device) else torch.device("cpu")
