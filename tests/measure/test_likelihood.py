"""Log-likelihoods of lm-eval's requests: its own, to the last bit, from requests read once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from support_inputs import save_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.errors import StageError
from pipeline.measure import likelihood
from pipeline.measure.likelihood import Likelihoods
from pipeline.models.prunable import PrunableModel

TEXTS = (
    ("A dog saw a cat.", " It ran."),
    ("A dog saw a cat.", " It sat."),  # as long
    ("A dog saw a cat.", " x"),
    ("A dog saw a cat.", " y"),  # differs in the last token alone
    ("A dog saw a cat. ", "x"),  # the same with the space elsewhere
    ("", "alone"),
    ("A dog saw a cat.", " x"),  # asked twice
    ("long " * 30, "and cut from the left"),
    ("b", "c"),
)
STATES: tuple[dict[str, Any], ...] = ({}, {"mlp": (0,), "attn_widths": {1: 16}}, {"attn": (0, 1)})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """One token a character."""
    folder: Path = save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def requests(texts: Sequence[tuple[str, str]] = TEXTS) -> list[Instance]:
    return [
        Instance("loglikelihood", {}, text, place, metadata=("task", place, 1))
        for place, text in enumerate(texts)
    ]


def by_lm_eval(model: PrunableModel, tokenizer: Any, batch_size: int) -> list[tuple[float, bool]]:
    lm = HFLM(pretrained=model.model, tokenizer=tokenizer, batch_size=batch_size)
    return lm.loglikelihood(requests(), disable_tqdm=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_answers_of_every_state_are_lm_evals_to_the_last_bit(
    pruned, tokenizer, dtype, batch_size
) -> None:
    small = {"max_position_embeddings": 64, "dtype": dtype}
    asked = Likelihoods("task", requests(), pruned(**small), tokenizer, batch_size)
    answers = [asked.of(pruned(**state, **small)) for state in STATES]
    assert answers == [by_lm_eval(pruned(**s, **small), tokenizer, batch_size) for s in STATES]
    assert len({answer for each in answers for answer in each}) > 2 * len(TEXTS)


def test_one_text_cut_in_two_places_is_read_once_and_scored_from_both(build, tokenizer) -> None:
    texts = [("A dog saw a cat.", " x"), ("A dog saw", " a cat. y")]
    model = build()
    asked = Likelihoods("task", requests(texts), model, tokenizer, 4)
    assert len(asked._batches[0].ids) == 1
    alone = HFLM(pretrained=model.model, tokenizer=tokenizer, batch_size=1, logits_cache=False)
    assert asked.of(model) == alone.loglikelihood(requests(texts), disable_tqdm=True)


def test_greedy_continuations_are_found(pruned, tokenizer) -> None:
    model = pruned()
    with torch.no_grad():
        start = torch.tensor([tokenizer("A dog")["input_ids"]])
        token = model.model(start).logits[0, -1].argmax().item()
    texts = [*TEXTS, ("A dog", tokenizer.decode(token))]
    asked = Likelihoods("task", requests(texts), model, tokenizer, 4)
    assert [is_greedy for _, is_greedy in asked.of(model)][-1]


def test_nothing_is_tokenised_for_a_second_state(build, tokenizer, monkeypatch) -> None:
    read: list[str] = []
    encode = HFLM.tok_encode

    def counting(self: HFLM, string: str, *args: Any, **settings: Any) -> list[int]:
        read.append(string)
        return encode(self, string, *args, **settings)

    monkeypatch.setattr(HFLM, "tok_encode", counting)
    model = build()
    asked = Likelihoods("task", requests(), model, tokenizer, 4)
    once = len(read)
    assert once >= len(TEXTS)
    assert asked.of(model) == asked.of(model)
    assert len(read) == once


def test_batches_begin_with_the_longest_and_suit_the_device(build, tokenizer) -> None:
    model = build()
    widths = list(_widths(Likelihoods("task", requests(), model, tokenizer, 2)))
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 3, "six texts differ in more than their last token"
    assert likelihood._suitable(torch.device("cpu"), 1000) == 16
    gpu = torch.device("cuda")
    assert [likelihood._suitable(gpu, n) for n in (30, 160, 100_000)] == [256, 102, 1]


def _widths(asked: Likelihoods) -> Iterator[int]:
    yield from (batch.ids.shape[1] for batch in asked._batches)


def test_a_task_whose_tokens_the_model_does_not_have_is_named(build, tokenizer) -> None:
    model = build(vocab_size=5)
    with pytest.raises(StageError, match="not in the model's vocabulary"):
        Likelihoods("task", requests(), model, tokenizer, 1)
