"""How far the next-token distributions of a model are from those of the dense one."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from pipeline.models.prunable import PrunableModel
from pipeline.scoring.kernels import fast_kernels
from pipeline.scoring.memory import Budget
from pipeline.scoring.one_pass import add_residual
from pipeline.scoring.perplexity import LOGITS_AT_ONCE, Windows

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of the dense model's log-probabilities and a model's, ``[tokens, vocabulary]``: ``[tokens]``."""


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """The mean of the divergences of both from their mean, in nats; symmetric, at most log 2."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)) + (q.exp() * (q - middle))).sum(dim=-1) / 2


def kullback_leibler(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats: what is lost where ``q`` stands for the dense model."""
    return (p.exp() * (p - q)).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class DivergenceLoss:
    """How far a model is from the dense one, in nats, the mean over all tokens."""

    dense: Tensor
    """What the dense model's final norm gives for all windows, ``[windows, tokens, hidden]``."""
    distance: Distance = jensen_shannon

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        dense: PrunableModel,
        windows: Windows,
        memory_fraction: float,
        distance: Distance = jensen_shannon,
    ) -> "DivergenceLoss":
        """With the outputs of a dense model."""
        ids = windows.ids.to(dense.device)
        rows = Budget.now(dense, ids.shape[1], memory_fraction, 0).rows
        contexts = dense.decoder_input(ids[:1]).contexts
        hidden = dense.decoder_input(ids).hidden
        with fast_kernels(dense):
            for block, context in zip(dense.blocks, contexts, strict=True):
                add_residual(hidden, block, context, rows)
            return cls(dense.normed(hidden), distance)

    @torch.no_grad()
    def __call__(
        self, model: PrunableModel, hidden: Tensor, _windows: Windows, at: slice
    ) -> Tensor:
        """As ``WindowLoss`` says."""
        rows = max(1, LOGITS_AT_ONCE[model.device.type] // model.vocabulary_size)
        states = (self.dense[at], model.normed(hidden))
        parts = (each.flatten(0, 1).split(rows) for each in states)
        per_token = [
            self.distance(_log_probabilities(model, dense), _log_probabilities(model, own))
            for dense, own in zip(*parts, strict=True)
        ]
        return torch.cat(per_token).view(hidden.shape[:2]).double().mean(dim=1).cpu()


def _log_probabilities(model: PrunableModel, normed: Tensor) -> Tensor:
    """Of the next tokens after normed states ``[tokens, hidden]``, float32."""
    return log_softmax(model.logits(normed), -1, dtype=torch.float32)
