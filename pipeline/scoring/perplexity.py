"""Calibration windows and the perplexity that is taken on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

from pipeline.models.prunable import PrunableModel
from pipeline.pruning.steps import ScoredCandidate
from pipeline.pruning.units import Candidate

LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**28}
"""Logits that exist at one time: on a CPU what stays in its caches."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Token windows of equal length."""

    ids: Tensor
    """``[windows, seqlen]``, int64."""
    eos_id: int | None
    """Targets equal to this id do not count. None: all count."""

    def part(self, which: Sequence[int]) -> "Windows":
        """The windows at these places; for all of them this very object."""
        everything = list(which) == list(range(len(self.ids)))
        return self if everything else Windows(self.ids[list(which)], self.eos_id)


@torch.no_grad()
def window_losses(model: PrunableModel, hidden: Tensor, ids: Tensor, eos_id: int | None) -> Tensor:
    """Mean next-token loss of each window, float64 ``[batch]`` on the CPU.

    ``hidden`` are the hidden states after the last block ``[batch, tokens, hidden]`` of the windows
    ``ids`` ``[batch, tokens]``. Targets equal to ``eos_id`` are left out, as in the reference
    (arXiv 2501.09949, ``evaluate_ppl`` of its published code). The loss is taken in float32.
    """
    targets = ids[:, 1:]
    counted = torch.ones_like(targets, dtype=torch.bool) if eos_id is None else targets != eos_id
    states = model.normed(hidden[:, :-1]).flatten(0, 1)
    losses = []
    for rows, target in _chunks(states, targets.flatten(), model):
        losses.append(_token_losses(model.logits(rows), target))
    per_token = torch.cat(losses).view(targets.shape).double() * counted
    return (per_token.sum(dim=1) / counted.sum(dim=1)).cpu()


def _token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each row in float32; logits in float16 are not copied for it on a GPU."""
    return nll_loss(log_softmax(logits, -1, dtype=torch.float32), targets, reduction="none")


def _chunks(states: Tensor, targets: Tensor, model: PrunableModel) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, LOGITS_AT_ONCE[model.device.type] // model.vocabulary_size)
    return list(zip(states.split(rows), targets.split(rows), strict=True))


def scored(candidates: Sequence[Candidate], losses: Tensor) -> list[ScoredCandidate]:
    """Candidates with the perplexity of their losses ``[candidates, windows]``."""
    return [
        ScoredCandidate(candidate, perplexity_of_losses(row))
        for candidate, row in zip(candidates, losses, strict=True)
    ]


def perplexity_of_losses(losses: Tensor) -> float | None:
    """Exponential of the mean over windows; None where that is not a finite number."""
    mean = losses.mean().item()
    ppl = math.exp(mean) if mean < math.log(torch.finfo(torch.float64).max) else math.inf
    return ppl if math.isfinite(ppl) else None
