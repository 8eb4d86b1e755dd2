"""Calibration windows and the perplexity that is taken on them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.models.prunable import PrunableModel

LOGITS_PER_CHUNK = 2**26
"""Logits that exist at one time: 256 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Token windows of equal length."""

    ids: Tensor
    """``[windows, seqlen]``, int64."""
    eos_id: int | None
    """Targets equal to this id do not count. None: all count."""


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
        losses.append(cross_entropy(model.logits(rows).float(), target, reduction="none"))
    per_token = torch.cat(losses).view(targets.shape).double() * counted
    return (per_token.sum(dim=1) / counted.sum(dim=1)).cpu()


def _chunks(states: Tensor, targets: Tensor, model: PrunableModel) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, LOGITS_PER_CHUNK // model.model.config.vocab_size)
    return list(zip(states.split(rows), targets.split(rows), strict=True))


def perplexity_of_losses(losses: Tensor) -> float | None:
    """Exponential of the mean over windows; None where that is not a finite number."""
    mean = losses.mean().item()
    ppl = math.exp(mean) if mean < math.log(torch.finfo(torch.float64).max) else math.inf
    return ppl if math.isfinite(ppl) else None
