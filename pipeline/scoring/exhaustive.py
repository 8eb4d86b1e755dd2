"""Exact scores of all candidates of a step, without running the layers below a candidate again."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.errors import StageError
from pipeline.models.blocks import Block
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.state import Candidate
from pipeline.pruning.trajectory import ScoredCandidate
from pipeline.scoring.perplexity import Windows, perplexity_of_losses, window_losses

Progress = Callable[[float], None]
"""Called with the share of a step's work that was done since the last call."""


def score_all(
    model: PrunableModel,
    candidates: Sequence[Candidate],
    windows: Windows,
    batch_windows: int,
    on_progress: Progress,
) -> list[ScoredCandidate]:
    """The perplexity of the live model without each candidate, in their order.

    ``batch_windows`` windows run at a time; where memory runs out, fewer do.
    """
    losses = []
    rest = windows.ids
    while len(rest):
        batch = rest[:batch_windows].to(model.device)
        try:
            losses.append(_losses(model, candidates, batch, windows.eos_id))
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise StageError(
                    f"out of memory with one window of {batch.shape[1]} tokens on {model.device}; "
                    "shorten calibration.seqlen or load the model in half precision (model.dtype)"
                ) from error
            batch_windows = len(batch) // 2
        else:
            rest = rest[len(batch) :]
            on_progress(len(batch) / len(windows.ids))
    per_candidate = torch.cat(losses, dim=1)
    return [
        ScoredCandidate(candidate, perplexity_of_losses(row))
        for candidate, row in zip(candidates, per_candidate, strict=True)
    ]


@torch.no_grad()
def _losses(
    model: PrunableModel, candidates: Sequence[Candidate], ids: Tensor, eos_id: int | None
) -> Tensor:
    """Loss of each candidate in each window, ``[candidates, windows]``.

    Below the block that a candidate changes, the model without it is the model itself: the trunk
    walks up once, and each candidate branches off where it differs.
    """
    at_block: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        at_block[candidate.unit.removesuffix("_width"), candidate.layer].append(index)
    decoder = model.decoder_input(ids)
    steps = list(zip(model.blocks, decoder.contexts, strict=True))
    losses = torch.full((len(candidates), len(ids)), torch.nan, dtype=torch.float64)
    assert at_block.keys() <= {(block.unit, block.layer) for block in model.blocks}
    trunk = decoder.hidden
    for position, (block, context) in enumerate(steps):
        for index in at_block[block.unit, block.layer]:
            branch = _branch(block, context, trunk, candidates[index])
            for later, later_context in steps[position + 1 :]:
                branch = later(branch, later_context)
            losses[index] = window_losses(model, branch, ids, eos_id)
        trunk = block(trunk, context)
    return losses


def _branch(
    block: Block, context: dict[str, object], trunk: Tensor, candidate: Candidate
) -> Tensor:
    if candidate.width_after == 0:
        return trunk
    out: Tensor = block(trunk, context, width=candidate.width_after)
    return out


@torch.no_grad()
def perplexity(model: PrunableModel, windows: Windows) -> float | None:
    """Perplexity of the live model as it is, one window at a time."""
    losses = []
    for ids in windows.ids.split(1):
        decoder = model.decoder_input(ids.to(model.device))
        hidden = decoder.hidden
        for block, context in zip(model.blocks, decoder.contexts, strict=True):
            hidden = block(hidden, context)
        losses.append(window_losses(model, hidden, ids.to(model.device), windows.eos_id))
    return perplexity_of_losses(torch.cat(losses))
