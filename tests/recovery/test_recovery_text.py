"""What recovery learns from: shares, order, and rows that it must not take."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support_inputs import problems_of, save_tokenizer, spelled, write_jsonl
from transformers import AutoTokenizer

from pipeline.data.sources import TextSource
from pipeline.recovery.text.instructions import read_instructions
from pipeline.recovery.text.sections import InstructionsConfig, RecoveryTextConfig
from pipeline.recovery.text.windows import Text, read_text

ROWS = {"a": [f"a{i:02d}b" for i in range(60)], "c": [f"c{i:02d}d" for i in range(60)]}
"""Four characters each, which are four tokens; an end follows."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path)
    for name, rows in ROWS.items():
        write_jsonl(tmp_path / f"{name}.jsonl", ({"text": row} for row in rows))
    return tmp_path


def read(
    place: Path, tokens: int, seed: int = 0, taken: Mapping[str, frozenset[int]] | None = None
) -> Text:
    def source(name: str, share: float = 1.0) -> TextSource:
        return TextSource(path=str(place / f"{name}.jsonl"), share=share)

    settings = RecoveryTextConfig(
        sources={"first": source("a", 3.0), "second": source("c")}, seqlen=10, held_out_tokens=20
    )
    tokenizer = AutoTokenizer.from_pretrained(place)
    return read_text(settings, tokenizer, tokens, seed, taken or {})


def test_every_source_has_its_share_and_what_is_held_out_is_not_learnt_from(place: Path) -> None:
    text = read(place, 160)
    windows = spelled(text.train.ids)
    assert sum("a" in window for window in windows) == 12
    assert sum("c" in window for window in windows) == 4
    assert text.train.lengths.tolist() == [10] * 16
    assert bool(text.train.learnt.all())
    for name, rows in (("first", ROWS["a"]), ("second", ROWS["c"])):
        learnt, held_out = text.rows[name], text.rows[f"{name}, held out"]
        assert not set(learnt) & set(held_out)
        of_held_out = "".join(spelled(text.held_out[name].ids))
        assert all(rows[number] in of_held_out for number in held_out)
        assert all(any(rows[number] in window for window in windows) for number in learnt)


def test_more_tokens_go_on_from_the_same_rows_and_another_seed_takes_others(place: Path) -> None:
    small, large, other = read(place, 80), read(place, 160), read(place, 80, seed=1)
    for name in small.rows:
        assert large.rows[name][: len(small.rows[name])] == small.rows[name]
    assert other.rows != small.rows


def test_rows_that_decisions_were_made_on_are_left_out(place: Path) -> None:
    taken = frozenset(range(0, 60, 2))
    text = read(place, 120, taken={"first": taken})
    assert not taken & {*text.rows["first"], *text.rows["first, held out"]}
    assert taken & set(text.rows["second"])


def test_text_that_is_too_short_is_named(place: Path) -> None:
    (problem,) = problems_of(lambda: read(place, 80, taken={"first": frozenset(range(60))}))
    assert problem.startswith("recover.calibration.sources.first: 0 tokens are left after what was")
    assert "and 10 are needed" in problem


def test_wikitext2s_test_text_is_refused(place: Path) -> None:
    row = "He had a guest @-@ starring role on the television series The Bill in 2000 ."
    write_jsonl(place / "a.jsonl", [{"text": row}])
    (problem,) = problems_of(lambda: read(place, 80))
    assert "a.jsonl is WikiText-2's test text" in problem


def test_of_instructions_the_answer_is_learnt_and_rows_are_split_as_the_reference_does(
    place: Path,
) -> None:
    from datasets import Dataset

    rows = [{"instruction": f"ask {i}", "input": "it" if i % 2 else "", "output": f"say {i}"}
            for i in range(40)]  # fmt: skip
    write_jsonl(place / "asked.jsonl", rows)
    tokenizer = AutoTokenizer.from_pretrained(place)
    settings = InstructionsConfig(path=str(place / "asked.jsonl"), seqlen=400, held_out=2000)
    text = read_instructions(settings, tokenizer, 10**6, seed=0)

    numbers = Dataset.from_dict({"n": list(range(40))})
    split = numbers.train_test_split(test_size=4, shuffle=True, seed=42)
    assert text.rows["instructions, held out"] == split["test"]["n"]
    assert sorted(text.rows["instructions"]) == sorted(split["train"]["n"])
    for number, ids, length, learnt in zip(
        text.rows["instructions"],
        text.train.ids,
        text.train.lengths,
        text.train.learnt,
        strict=True,
    ):
        row = rows[number]
        (answer,) = spelled(ids[learnt][None])
        assert answer.startswith(row["output"])
        (whole,) = spelled(ids[None, : int(length)])
        assert f"### Instruction:\n{row['instruction']}\n\n###" in whole
        assert ("### Input:\nit\n\n" in whole) == bool(row["input"])
        assert not bool(learnt[int(length) :].any())

    asked = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nask 4\n\n### Response:\nsay anything"
    )
    left = read_instructions(settings, tokenizer, 10**6, 0, [asked])
    assert len(left.train.ids) + len(left.held_out["instructions"].ids) == 39

    cut = settings.model_copy(update={"seqlen": 20})
    assert read_instructions(cut, tokenizer, 10**6, 0).train.ids.shape[1] == 20
