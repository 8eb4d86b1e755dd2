"""How far the next-token distributions of a model are from those of the dense one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from pipeline.models.prunable import PrunableModel
from pipeline.scoring.kernels import fast_kernels
from pipeline.scoring.memory import Budget
from pipeline.scoring.one_pass import add_residual
from pipeline.scoring.perplexity import LOGITS_AT_ONCE, Windows


@dataclass(frozen=True, slots=True)
class DivergenceLoss:
    """The Jensen-Shannon divergence from the dense model, in nats, the mean over all tokens."""

    dense: Tensor
    """What the dense model's final norm gives for all windows, ``[windows, tokens, hidden]``."""

    @classmethod
    @torch.no_grad()
    def of(cls, dense: PrunableModel, windows: Windows, memory_fraction: float) -> "DivergenceLoss":
        """With the outputs of a dense model."""
        ids = windows.ids.to(dense.device)
        rows = Budget.now(dense, ids.shape[1], memory_fraction, 0).rows
        contexts = dense.decoder_input(ids[:1]).contexts
        hidden = dense.decoder_input(ids).hidden
        with fast_kernels(dense):
            for block, context in zip(dense.blocks, contexts, strict=True):
                add_residual(hidden, block, context, rows)
            return cls(dense.normed(hidden))

    @torch.no_grad()
    def __call__(
        self, model: PrunableModel, hidden: Tensor, _windows: Windows, at: slice
    ) -> Tensor:
        """As ``WindowLoss`` says."""
        rows = max(1, LOGITS_AT_ONCE[model.device.type] // model.vocabulary_size)
        states = (self.dense[at], model.normed(hidden))
        parts = (each.flatten(0, 1).split(rows) for each in states)
        per_token = [_divergence(model, dense, own) for dense, own in zip(*parts, strict=True)]
        return torch.cat(per_token).view(hidden.shape[:2]).double().mean(dim=1).cpu()


def _divergence(model: PrunableModel, dense: Tensor, own: Tensor) -> Tensor:
    """Of the distributions of normed states ``[tokens, hidden]``, float32 ``[tokens]``."""
    p, q = (log_softmax(model.logits(each), -1, dtype=torch.float32) for each in (dense, own))
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)) + (q.exp() * (q - middle))).sum(dim=-1) / 2
