"""Learning from the dense model: its answers as they are needed, or taken once before."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.tensors import read_tensors, wide
from pipeline.pruning.state import PruningState
from pipeline.recovery.base import Examples
from pipeline.recovery.training.checkpoints import Checkpoint
from pipeline.recovery.training.losses import Batch, BatchLoss, PartLoss, parts, targets_of

SEQUENCES = 4
"""That the teacher answers at a time while its answers are stored."""
LEAST = 1e-7
"""Probability that is left for the tokens that are not stored."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Of the dense model, to a batch."""

    divergence: Callable[[Tensor, slice], Tensor]
    """KL(dense || pruned), summed, of the logits ``[tokens, vocabulary]`` of some targets."""
    states: Tensor | None
    """Its normed hidden states ``[targets, hidden]``, where they are at hand."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """Divergence from the dense model's distribution (arXiv 1503.02531), and what is added."""

    logits: float
    """Weight of the squared temperature times the divergence at that temperature."""
    temperature: float
    next_token: float
    """Weight of the next token's cross entropy."""
    hidden: float
    """Weight of the squared distance from the dense hidden states, by their squared norm."""
    train: Examples
    stored: Path | None = None
    """The file with the answers; None: they are computed as they are needed."""

    def open(self, live: LiveModel, model: PrunableModel) -> BatchLoss:
        """The loss of ``model``."""
        answers = self._from_file(self.stored) if self.stored else self._from_twin(live, model)

        def of(batch: Batch) -> PartLoss:
            answer = answers(batch)

            def part(states: Tensor, at: slice) -> Tensor:
                logits = wide(model.logits(states))
                loss = torch.zeros((), device=logits.device)
                if self.logits:
                    loss = self.logits * self.temperature**2 * answer.divergence(logits, at)
                if self.next_token:
                    own = cross_entropy(logits, batch.targets[at], reduction="sum")
                    loss = loss + self.next_token * own
                if self.hidden and answer.states is not None:
                    wanted = wide(answer.states[at])
                    far = (wide(states) - wanted).square().sum(-1) / wanted.square().sum(-1)
                    loss = loss + self.hidden * far.sum()
                return loss

            return part

        return of

    def _from_twin(self, live: LiveModel, model: PrunableModel) -> Callable[[Batch], Answers]:
        dense = dense_twin(live, model)

        def answers(batch: Batch) -> Answers:
            with torch.no_grad():
                states = batch.states(dense.hidden(batch.ids))

            def part(logits: Tensor, at: slice) -> Tensor:
                with torch.no_grad():
                    wanted = dense.logits(states[at])
                return divergence(logits, wanted, self.temperature)

            return Answers(part, states)

        return answers

    def _from_file(self, path: Path) -> Callable[[Batch], Answers]:
        stored = read_tensors(path)
        counts = targets_of(self.train)
        ends = counts.cumsum(0)

        def answers(batch: Batch) -> Answers:
            places = torch.cat(
                [torch.arange(int(ends[r] - counts[r]), int(ends[r])) for r in batch.rows]
            )
            logs = stored["logs"][places].to(batch.ids.device)
            tokens = stored["tokens"][places].to(batch.ids.device).long()
            return Answers(
                lambda logits, at: divergence_of_top(
                    logits, logs[at], tokens[at], self.temperature
                ),
                None,
            )

        return answers


def dense_twin(live: LiveModel, model: PrunableModel) -> PrunableModel:
    """The dense model, its channels in the order of ``model``'s."""
    return live.twin(live.cut(PruningState.dense(model.shape)))


def divergence(logits: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """KL(dense || pruned) of logits ``[tokens, vocabulary]`` at a temperature, summed."""
    mine = log_softmax(wide(logits) / temperature, dim=-1)
    wanted = log_softmax(wide(dense) / temperature, dim=-1)
    return kl_div(mine, wanted, reduction="sum", log_target=True)


def divergence_of_top(logits: Tensor, logs: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """The same from the dense model's most probable tokens, all others taken as one.

    ``logs`` are the log-probabilities of ``tokens``, both ``[tokens, k]``, at that temperature.
    """
    mine = log_softmax(wide(logits) / temperature, dim=-1)
    others = mine.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    mine = torch.cat([mine.gather(-1, tokens), others], dim=-1)
    rest = torch.log1p(-logs.exp().sum(-1, keepdim=True).clamp(max=1 - LEAST))
    return kl_div(mine, torch.cat([logs, rest], dim=-1), reduction="sum", log_target=True)


@torch.no_grad()
def store_answers(
    dense: PrunableModel,
    train: Examples,
    top: int,
    temperature: float,
    path: Path,
    on_progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write the log-probabilities of the ``top`` tokens after every one that is learnt from.

    ``on_progress`` is called with the tokens that were read since the last call.
    """
    top = min(top, dense.vocabulary_size - 1)
    logs, tokens = [], []
    for rows in torch.arange(len(train.ids)).split(SEQUENCES):
        batch = Batch.of(train, rows.tolist(), dense.device)
        states = batch.states(dense.hidden(batch.ids))
        for at in parts(dense, batch):
            each = log_softmax(wide(dense.logits(states[at])) / temperature, dim=-1).topk(top)
            logs.append(each.values.cpu())
            tokens.append(each.indices.int().cpu())
        on_progress(len(rows) * train.ids.shape[1])
    Checkpoint({"logs": torch.cat(logs), "tokens": torch.cat(tokens)}, {}).write(path)
