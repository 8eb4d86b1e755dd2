"""What training minimises, over the vocabulary for some tokens at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.tensors import wide
from pipeline.recovery.base import Examples

LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**27}
"""Logits that exist at one time, in float32 a few times over."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples on the device, as wide as the longest."""

    rows: Sequence[int]
    """Their places among the examples."""
    ids: Tensor
    """``[examples, tokens]``."""
    predicts: Tensor
    """Which positions predict a token that counts; bool ``[examples, tokens - 1]``."""
    targets: Tensor
    """The tokens that count, ``[targets]``, one example after the other."""

    @classmethod
    def of(cls, examples: Examples, rows: Sequence[int], device: torch.device) -> "Batch":
        """Examples by their places. Padding needs no mask: it is behind what attends."""
        which = list(rows)
        longest = int(examples.lengths[which].max())
        ids = examples.ids[which, :longest].to(device)
        predicts = examples.learnt[which, 1:longest].to(device)
        return cls(which, ids, predicts, ids[:, 1:][predicts])

    def states(self, hidden: Tensor) -> Tensor:
        """Of hidden states ``[examples, tokens, hidden]`` those that predict what counts."""
        return hidden[:, :-1][self.predicts]


def targets_of(examples: Examples) -> Tensor:
    """Tokens of each example that count: its first one is predicted by none."""
    return examples.learnt[:, 1:].sum(dim=1)


PartLoss = Callable[[Tensor, slice], Tensor]
"""Summed loss of states ``[tokens, hidden]`` that predict these of a batch's targets."""


BatchLoss = Callable[[Batch], PartLoss]
"""The loss of a batch."""


class Objective(Protocol):
    """A loss, to be pickled until it is opened."""

    def open(self, live: LiveModel, model: PrunableModel) -> BatchLoss:
        """The loss of ``model``, which is at hand in ``live``."""


class NextToken:
    """Cross entropy of the next token."""

    def open(self, live: LiveModel, model: PrunableModel) -> BatchLoss:  # noqa: ARG002
        """As ``Objective`` says."""
        return next_token_loss(model)


def next_token_loss(model: PrunableModel) -> BatchLoss:
    """Cross entropy of the tokens that count, in float32 at least."""
    return lambda batch: (
        lambda states, at: cross_entropy(
            wide(model.logits(states)), batch.targets[at], reduction="sum"
        )
    )


def parts(model: PrunableModel, batch: Batch) -> Iterator[slice]:
    """A batch's targets, as many at a time as there may be logits."""
    size = max(1, LOGITS_AT_ONCE[model.device.type] // model.vocabulary_size)
    return (slice(start, start + size) for start in range(0, len(batch.targets), size))


def add_gradients(
    model: PrunableModel,
    batch: Batch,
    loss_of: BatchLoss,
    targets: int,
    computing: Callable[[], AbstractContextManager[object]],
) -> float:
    """Add the gradients of a batch's summed loss, divided by ``targets``; the summed loss.

    Each part of the logits is gone before the next one is computed.
    """
    with computing():
        part_loss = loss_of(batch)
        states = batch.states(model.hidden(batch.ids))
    leaf = states.detach().requires_grad_()
    total = torch.zeros((), dtype=torch.float64, device=leaf.device)
    for at in parts(model, batch):
        with computing():
            loss = part_loss(leaf[at], at)
        (loss / targets).backward()
        total += loss.detach().double()
    if leaf.grad is not None:
        states.backward(leaf.grad)
    return total.item()


@torch.no_grad()
def summed_loss(
    model: PrunableModel,
    batch: Batch,
    loss_of: BatchLoss,
    computing: Callable[[], AbstractContextManager[object]],
) -> float:
    """A batch's summed loss, without gradients."""
    with computing():
        part_loss, states = loss_of(batch), batch.states(model.hidden(batch.ids))
        losses = [part_loss(states[at], at).double() for at in parts(model, batch)]
    return float(sum(losses))
