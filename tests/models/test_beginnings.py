"""What stands before texts and windows: as the tokenizer has it, and as ``model.bos`` says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from support_inputs import CHARACTERS, EOS, problems_of, save_tokenizer, spelled
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from pipeline.data.datasets import cut_windows, rows_until
from pipeline.data.mixing import RowsInOrder
from pipeline.measure.record import TaskScore, TextScore, tasks_protocol
from pipeline.measure.text import text_windows
from pipeline.models.beginnings import Bos
from pipeline.models.families import FAMILIES
from pipeline.models.source import ModelSource

ROWS = ["abcdef", "ghijkl"]  # 14 tokens with what is between them
BOS_ID = CHARACTERS.index(EOS)  # the tokenizer's beginning is its end, as GPT-2's


def model(folder: Path, model_type: str, bos: Bos = "auto", *, adds: bool = True) -> ModelSource:
    """A model's files without weights; ``adds``: whether its tokenizer puts bos before a text."""
    save_tokenizer(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if adds:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{EOS} $A", pair=f"{EOS} $A $B", special_tokens=[(EOS, BOS_ID)]
        )
        tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return ModelSource(folder, None, None, bos)


def windows(source: ModelSource) -> list[str]:
    return spelled(text_windows(source.tokenizer, ROWS, 5, begin=source.beginning.window).ids)


PLAIN = ["abcde", "f\n\ngh"]
ONCE = [f"{EOS}abcd", "ef\n\ng"]
EVERY = [f"{EOS}abcd", f"{EOS}ef\n\n", f"{EOS}ghij"]


@pytest.mark.parametrize(
    ("model_type", "bos", "adds", "read", "noted"),
    [
        ("llama", "auto", True, ONCE, (None, None)),
        ("pruned_llama", "auto", True, ONCE, (None, None)),
        ("qwen3", "auto", False, PLAIN, (None, None)),
        ("gemma2", "auto", True, EVERY, ("every", None)),
        ("gemma2", "auto", False, PLAIN, (None, None)),
        ("llama", "always", True, EVERY, ("every", None)),
        ("qwen3", "always", False, EVERY, ("every", "every")),
        ("gemma2", "never", True, PLAIN, ("never", "never")),
        ("qwen3", "never", False, PLAIN, (None, None)),
    ],
)
def test_windows_begin_as_the_field_has_them_begin_or_as_it_is_typed(
    tmp_path: Path,
    model_type: str,
    bos: Bos,
    adds: bool,
    read: list[str],
    noted: tuple[str | None, str | None],
) -> None:
    source = model(tmp_path, model_type, bos, adds=adds)
    assert windows(source)[: len(read)] == read
    begin = source.beginning.window
    assert spelled(cut_windows(source.tokenizer, ROWS, 5, 2, begin)) == read[:2]
    assert (source.beginning.of_windows, source.beginning.of_texts) == noted
    before = EOS if read is EVERY or (adds and bos != "never") else ""
    assert source.tokens_before == {"text": before, "window": EOS if read is EVERY else ""}
    # lm-eval's own way with what it is given
    asked = HFLM.tok_encode(_Lm(source.tokenizer), "ab")
    assert spelled_ids(asked) == f"{before}ab"
    assert (
        source.own_tokenizer("ab")["input_ids"]
        == AutoTokenizer.from_pretrained(tmp_path)("ab").input_ids
    )


class _Lm:
    """What ``HFLM.tok_encode`` looks at."""

    add_bos_token = None

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.prefix_token_id = tokenizer, tokenizer.bos_token_id


def spelled_ids(ids: list[int]) -> str:
    return "".join(CHARACTERS[i] for i in ids)


def test_rows_of_several_sources_begin_alike_and_fill_their_windows(tmp_path: Path) -> None:
    source = model(tmp_path, "gemma2")
    begin = source.beginning.window
    rows = RowsInOrder("own", ["abc", "abc", "abc"], 0, source.tokenizer, begin=begin)
    assert spelled(rows.windows(5, 10)) == [f"{EOS}abc{EOS}"] * 2
    assert len(rows.read()) == 2
    # 8 tokens of text fill two windows: one row and what is between it and the next do
    assert rows_until(source.tokenizer, ROWS, 2 * 4, begin) == 2
    assert rows_until(source.tokenizer, ROWS, 4, begin) == 1


def test_a_token_that_is_there_and_stands_nowhere_is_told(tmp_path: Path) -> None:
    source = model(tmp_path, "gemma2", adds=False)
    assert source.unused_bos is None, "it ends sequences, too"
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"bos_token": "a"}))
    assert ModelSource(tmp_path, None, None).unused_bos == "a"
    assert ModelSource(tmp_path, None, None, "never").unused_bos is None


def test_a_tokenizer_without_such_a_token_is_refused(tmp_path: Path) -> None:
    source = model(tmp_path, "llama", "always", adds=False)
    settings = tmp_path / "tokenizer_config.json"
    named = json.loads(settings.read_text())
    settings.write_text(json.dumps({k: v for k, v in named.items() if k != "bos_token"}))
    (problem,) = problems_of(lambda: source.tokenizer)
    assert problem.startswith("model.bos: always is wrong: ")


@pytest.mark.parametrize(
    ("values", "eos_id"),
    [
        ({"eos_token_id": [7, 3]}, 7),
        ({"text_config": {"model_type": "gemma3_text", "eos_token_id": [9, 3]}}, 9),
        ({"eos_token_id": None, "text_config": {"model_type": "gemma3_text"}}, None),
    ],
)
def test_the_first_of_several_ends_counts_wherever_it_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], eos_id: int | None
) -> None:
    nested = replace(FAMILIES["llama"], model_types=("gemma3",), text_config="text_config")
    monkeypatch.setitem(FAMILIES, "gemma3", nested)
    source = model(tmp_path, "gemma3")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", **values}))
    assert source.eos_id == eos_id


def test_numbers_with_and_without_it_are_told_apart() -> None:
    texts = [
        TextScore("a", "a.txt", None, 20, True, 5, 2.0, bos) for bos in (None, "every", "never")
    ]
    assert [text.protocol for text in texts] == [
        "a.txt, 20 tokens, windows of 5",
        "a.txt, 20 tokens, windows of 5, bos before each",
        "a.txt, 20 tokens, windows of 5, no bos",
    ]
    score = TaskScore("own", 3, 0.5, 0.1, None, None, bos="never")
    assert tasks_protocol([score]) == "own, 3 items, no bos"
