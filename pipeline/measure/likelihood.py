"""Log-likelihoods of what lm-eval asks, tokenised and batched once for every state of a model."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.data.windows import not_in_vocabulary
from pipeline.errors import StageError
from pipeline.models.prunable import PrunableModel

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

Answer = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding would give it."""
CPU_SEQUENCES = 16
GPU_SEQUENCES, GPU_TOKENS = 256, 16384
"""A batch on a GPU: as many as keep it busy, as few as leave room for their logits."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request in tokens."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The text as a whole."""
        return self.context + self.continuation


@dataclass(frozen=True, slots=True)
class _Batch:
    """Sequences that the model reads together, and where the answers are in its logits."""

    ids: Tensor
    """``[sequences, tokens]``, filled up with zeros behind the shorter ones."""
    rows: Tensor
    """``[targets]``: the sequence of each token of a continuation."""
    positions: Tensor
    """``[targets]``: the token before it."""
    targets: Tensor
    """``[targets]``: its id."""
    requests: tuple[int, ...]
    """The places of the requests."""
    lengths: tuple[int, ...]
    """How many of the targets each of them has."""

    @torch.no_grad()
    def scores(self, model: PrunableModel) -> tuple[Tensor, Tensor]:
        """Log-likelihood of each request's continuation, and whether it is the greedy one."""
        logits = model.model(self.ids).logits
        log_probs = logits[self.rows, self.positions].log_softmax(dim=-1)
        is_greedy = log_probs.argmax(dim=-1) == self.targets
        of_targets = log_probs.gather(1, self.targets[:, None])[:, 0]
        return (
            torch.stack([each.sum() for each in of_targets.split(self.lengths)]),
            torch.stack([each.all() for each in is_greedy.split(self.lengths)]),
        )


class Likelihoods:
    """Requests to be asked of many states of a model: tokens and batches are made once.

    lm-eval tokenises them, and its batches are made here: the longest first, and what differs in
    its last token alone is read once. So answers are those of lm-eval's ``HFLM`` with the same
    ``batch_size``, to the last bit; only log-probabilities that nobody looks at are not computed.
    ``batch_size`` None takes what suits the model's device.

    Raises ``StageError`` that names the task, ``name``, where a continuation does not fit into the
    model's context, or a token is none of the model's.
    """

    def __init__(
        self,
        name: str,
        requests: "Sequence[Instance]",
        model: PrunableModel,
        tokenizer: "PreTrainedTokenizerBase",
        batch_size: int | None,
    ) -> None:
        self._asked, self._context_length = _tokenised(requests, model, tokenizer)
        for asked in self._asked:
            if len(asked.continuation) > self._context_length:
                raise StageError(
                    f"{name} cannot be measured: a choice of {len(asked.continuation)} tokens does "
                    f"not fit into the model's context of {self._context_length}"
                )
        highest = max(max(asked.ids) for asked in self._asked)
        if problem := not_in_vocabulary(highest, model.vocabulary_size):
            raise StageError(f"{name} cannot be measured: {problem}")
        longest = max(len(self._read(asked)) for asked in self._asked)
        self._batch_size = batch_size or _suitable(model.device, longest)
        self._batches = self._batched(model.device)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._asked)

    @property
    def tokens(self) -> int:
        """That the model reads."""
        return sum(batch.ids.numel() for batch in self._batches)

    def of(
        self, model: PrunableModel, on_progress: Callable[[float], None] = lambda _: None
    ) -> list[Answer]:
        """The answers of the model as it is, in the order of the requests.

        ``on_progress`` is called with the tokens that were read since the last call.
        Raises ``StageError`` where one sequence does not fit into memory.
        """
        while True:
            try:
                scores = []
                for batch in self._batches:
                    scores.append(batch.scores(model))
                    on_progress(batch.ids.numel())
            except torch.OutOfMemoryError as error:
                if self._batch_size == 1:
                    raise StageError(
                        f"out of memory while scoring one sequence on {model.device}; load the "
                        "model in half precision (model.dtype)"
                    ) from error
                self._batch_size //= 2  # for the states after this one, too
                self._batches = self._batched(model.device)
            else:
                break
        places = [place for batch in self._batches for place in batch.requests]
        sums = torch.cat([each for each, _ in scores]).tolist()
        greedy = torch.cat([each for _, each in scores]).tolist()
        answers = dict(zip(places, zip(sums, greedy, strict=True), strict=True))
        return [answers[place] for place in range(len(self))]

    def _read(self, asked: _Asked) -> tuple[int, ...]:
        """What the model reads of a request: all but the last token, cut from the left."""
        return asked.ids[-(self._context_length + 1) :][:-1]

    def _batched(self, device: torch.device) -> list[_Batch]:
        groups, size = self._groups(), self._batch_size
        return [
            self._batch(groups[start : start + size], device)
            for start in range(0, len(groups), size)
        ]

    def _groups(self) -> list[list[int]]:
        """Requests that differ in their last token alone; those with the most tokens first."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, asked in enumerate(self._asked):
            groups[asked.ids[:-1]].append(place)

        def order(group: list[int]) -> tuple[int, tuple[int, ...]]:  # lm-eval's
            chosen = max((self._asked[place] for place in group), key=lambda a: len(a.continuation))
            return -len(chosen.ids), chosen.ids

        return sorted(groups.values(), key=order)

    def _batch(self, groups: Sequence[list[int]], device: torch.device) -> _Batch:
        texts = [self._read(self._asked[group[0]]) for group in groups]
        width = max(map(len, texts))
        places = [(row, place) for row, group in enumerate(groups) for place in group]
        found = [
            (row, position, target)
            for row, place in places
            for position, target in _targets(len(texts[row]), self._asked[place].continuation)
        ]
        rows, positions, targets = torch.tensor(found, device=device).unbind(dim=1)
        return _Batch(
            ids=torch.tensor(
                [[*text, *[0] * (width - len(text))] for text in texts], device=device
            ),
            rows=rows,
            positions=positions,
            targets=targets,
            requests=tuple(place for _, place in places),
            lengths=tuple(len(self._asked[place].continuation) for _, place in places),
        )


def _targets(end: int, continuation: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each token of a continuation after the place that foretells it, in ``end`` tokens."""
    return enumerate(continuation, end - len(continuation))


def _suitable(device: torch.device, longest: int) -> int:
    """Sequences of a batch of which the longest has so many tokens."""
    if device.type == "cpu":
        return CPU_SEQUENCES
    return max(1, min(GPU_SEQUENCES, GPU_TOKENS // longest))


def _tokenised(
    requests: "Sequence[Instance]", model: PrunableModel, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[_Asked], int]:
    """The requests as lm-eval tokenises them, and the most tokens that it lets the model read."""
    from lm_eval.models.huggingface import HFLM

    class Tokeniser(HFLM):  # type: ignore[misc]  # lm-eval has no types
        def _loglikelihood_tokens(
            self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: object
        ) -> list[Answer]:
            asked.extend(_Asked(tuple(start), tuple(end)) for _, start, end in requests)
            return []

    asked: list[_Asked] = []
    lm = Tokeniser(pretrained=model.model, backend="causal", tokenizer=tokenizer)
    lm.loglikelihood(list(requests), disable_tqdm=True)
    return asked, lm.max_length
