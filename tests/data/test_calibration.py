"""The calibration text: which rows are drawn, and which tokens the windows hold."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import (
    CHARACTERS,
    configured,
    edit_config,
    problems_of,
    save_model,
    save_tokenizer,
    spelled,
    write_jsonl,
    write_tokens,
)
from torch import Tensor

from pipeline.data.datasets import (
    cut_windows,
    dataset_rows,
    draw_places,
    local_rows,
    paragraphs,
    ptb_rows,
    wikitext_rows,
)
from pipeline.errors import ConfigError, StageError
from pipeline.files import read_json
from pipeline.models.source import ModelSource, locate
from pipeline.stages import calibrate
from pipeline.stages.base import Inputs
from pipeline.stages.shared import calibration
from pipeline.stages.shared.calibration import Calibration, prepare

ROWS = [f"row {i}" for i in range(200)]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with tokenizer, saved once. One token a character; ``</s>`` ends a sequence."""
    return save_tokenizer(save_model(tmp_path_factory.mktemp("saved") / "model"))


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def source(folder: Path) -> ModelSource:
    return locate(str(folder), None, None)


def prepared(model: Path, dataset: str, file: Path, **settings: Any) -> tuple[list[str], list[str]]:
    """What the windows for blocks and for widths read; windows are of 8 tokens."""
    windows, _ = tensors(model, dataset, file, **settings)
    return spelled(windows["block"]), spelled(windows["width"])


def tensors(
    model: Path, dataset: str, file: Path, **settings: Any
) -> tuple[dict[str, Tensor], int | None]:
    given = {"seqlen": 8, "block_windows": "null", "width_windows": "null"} | settings
    overrides = [f"calibration.{key}={value}" for key, value in given.items()]
    config = configured(f"calibration={dataset}", f"calibration.path={file}", *overrides)
    return prepare(config.calibration, source(model))


# ---- rows


@pytest.fixture
def reference_random() -> Iterator[None]:
    """The global generator, which the reference draws from, seeded as it seeds it."""
    state = random.getstate()
    random.seed(42)
    yield
    random.setstate(state)


def test_rows_are_drawn_as_the_reference_draws_them_width_first(reference_random: None) -> None:
    width = random.sample(range(len(ROWS)), 12)
    block = random.sample(range(len(ROWS)), 25)
    assert draw_places(len(ROWS), width_samples=12, block_samples=25) == (width, block)


def test_a_draw_is_the_same_every_time_and_leaves_the_global_generator_alone() -> None:
    before = random.getstate()
    assert draw_places(200, 12, 25) == draw_places(200, 12, 25)
    assert random.getstate() == before


def test_all_rows_can_be_drawn_and_no_more() -> None:
    width, block = draw_places(200, 200, 200)
    assert sorted(width) == sorted(block) == list(range(200))
    for sizes in ((201, 1), (1, 201)):
        (problem,) = problems_of(lambda sizes=sizes: draw_places(200, *sizes))
        assert "allowed is at most 200" in problem


def test_wikitext_rows_are_lines_with_their_line_end_and_blank_lines_are_empty() -> None:
    text = " \n = Robert Boulter = \n \n Robert is an actor . \n\n = = Career = = \n"
    assert wikitext_rows(text) == [
        "",
        " = Robert Boulter = \n",
        "",
        " Robert is an actor . \n",
        "",
        " = = Career = = \n",
    ]


def test_the_test_text_of_wikitext2_has_as_many_rows_as_on_the_hub(shared: Path) -> None:
    file = shared / "data" / "wikitext2" / "wiki.test.raw"
    rows = dataset_rows("wikitext2", file, None)
    assert len(rows) == 4358
    assert "".join(row or " \n" for row in rows) == file.read_text("utf-8")


def test_paragraphs_are_what_stands_between_blank_lines() -> None:
    text = "\n \nFirst line,\nsecond line.\n \t\n\nAnother.\n\n\n\n  Indented."
    assert paragraphs(text) == ["First line,\nsecond line.", "Another.", "  Indented."]
    assert paragraphs("One alone.") == ["One alone."]
    assert paragraphs(" \n\n\t\n") == []


def test_ptb_rows_are_sentences_without_the_space_around_them() -> None:
    assert ptb_rows(" no it was n't <unk> \n\n a N cent share \n") == [
        "no it was n't <unk>",
        "a N cent share",
    ]


def test_a_jsonl_file_has_a_row_a_line_whatever_else_ends_lines_in_unicode(tmp_path: Path) -> None:
    texts = ["one\u2028still one", "two\u2029\u0085\x0b\x0cstill two", "three\nstill three", ""]
    file = write_jsonl(tmp_path / "rows.jsonl", ({"text": text} for text in texts))
    assert "\u2028" in file.read_text("utf-8")
    assert dataset_rows("text", file, None) == texts


def test_blank_lines_of_a_jsonl_file_are_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "one"}\n\n  \n{"text": "two"}', "utf-8")
    assert local_rows(file, "text", paragraphs) == ["one", "two"]


@pytest.mark.parametrize("dataset", ["text", "wikitext2", "c4", "ptb"])
def test_a_jsonl_file_is_read_by_its_field_for_every_dataset(dataset: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": "t1", "body": "b1"}, {"body": "b2"}])
    assert dataset_rows(dataset, file, "body") == ["b1", "b2"]


def test_rows_of_alpaca_are_those_of_the_two_splits_of_datasets(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [f"prompt and answer {i}" for i in range(1000)]
    held_out = Dataset.from_dict({"text": rows}).train_test_split(0.2, seed=42)["test"]
    expected = held_out.train_test_split(0.5, seed=42)["train"]["text"]
    file = write_jsonl(tmp_path / "alpaca.jsonl", ({"text": row} for row in rows))
    assert dataset_rows("alpaca", file, None) == list(expected)
    assert len(expected) == 100


def test_a_dataset_that_the_hub_does_not_give_is_answered_with_the_local_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(StageError, match=r"tatsu-lab/alpaca.*no route.*calibration\.path"):
        dataset_rows("alpaca", None, None)


# ---- windows


def test_rows_are_joined_by_a_blank_line_and_cut_and_the_rest_is_dropped(
    model: Path, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": "abcde"}] * 3)
    block, width = prepared(model, "text", file, block_samples=3, width_samples=2)
    assert block == ["abcde\n\na", "bcde\n\nab"]  # of abcde abcde abcde: 3 tokens are left over
    assert width == ["abcde\n\na"]


def test_exactly_one_window_of_text_is_enough(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("abcdefgh", "utf-8")
    assert prepared(model, "text", file) == (["abcdefgh"], ["abcdefgh"])
    file.write_text("abcdefg", "utf-8")
    (problem,) = problems_of(lambda: prepared(model, "text", file))
    assert "has 7 tokens, and one window needs 8" in problem


@pytest.mark.parametrize(
    ("caps", "counts"),
    [
        ({}, (5, 5)),
        ({"block_windows": 2}, (2, 5)),
        ({"width_windows": 1}, (5, 1)),
        ({"block_windows": 3, "width_windows": 2}, (3, 2)),
        ({"block_windows": 100, "width_windows": 5}, (5, 5)),
    ],
)
def test_no_more_windows_are_kept_than_asked_for_and_those_are_the_first(
    caps: dict[str, int], counts: tuple[int, int], model: Path, tmp_path: Path
) -> None:
    text = "".join(CHARACTERS[2:42])
    write_jsonl(tmp_path / "rows.jsonl", [{"text": text}])
    block, width = prepared(model, "text", tmp_path / "rows.jsonl", **caps)
    whole = [text[i : i + 8] for i in range(0, 40, 8)]
    assert (block, width) == (whole[: counts[0]], whole[: counts[1]])


def test_a_text_with_fewer_rows_than_are_drawn_is_taken_whole(model: Path, tmp_path: Path) -> None:
    rows = [f"row {i:04d}" for i in range(20)]
    write_jsonl(tmp_path / "rows.jsonl", ({"text": row} for row in rows))
    width, block = ([rows[i] for i in each] for each in draw_places(20, 10, 20))
    read = prepared(
        model, "text", tmp_path / "rows.jsonl", width_samples=10, block_samples=256, seqlen=10
    )
    assert (
        ["".join(windows) for windows in read]
        == [
            "\n\n".join(block)[:190],  # 198 characters
            "\n\n".join(width)[:90],  # 98 characters
        ]
    )


@pytest.mark.parametrize(
    ("dataset", "text", "rows"),
    [
        ("wikitext2", "ab\n \ncd\n", ["ab\n", "", "cd\n"]),
        ("ptb", " ab \n cd \n ef \n", ["ab", "cd", "ef"]),
        ("c4", "ab\n\nc\nd\n\nef", ["ab", "c\nd", "ef"]),
    ],
)
def test_each_dataset_makes_windows_of_its_own_rows(
    dataset: str, text: str, rows: list[str], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text(text, "utf-8")
    width, block = ([rows[i] for i in each] for each in draw_places(len(rows), 2, 3))
    read = prepared(model, dataset, tmp_path / "text", width_samples=2, block_samples=3, seqlen=3)
    assert ["".join(windows) for windows in read] == [
        joined[: len(joined) // 3 * 3] for joined in ("\n\n".join(block), "\n\n".join(width))
    ]


# ---- the end-of-sequence id


def test_the_id_that_does_not_count_is_the_tokenizers_for_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some text", "utf-8")
    _, eos = tensors(model, "text", tmp_path / "text.txt")
    assert eos == 1


def test_the_id_that_does_not_count_is_the_configurations_for_token_ids(
    model: Path, tmp_path: Path
) -> None:
    file = write_tokens(tmp_path / "tokens.json")
    for configured_as, counts_as in ((3, 3), ([7, 3], 7), (None, None)):
        edit_config(model, eos_token_id=configured_as)
        assert tensors(model, "tokens", file)[1] == counts_as


def test_an_id_of_0_counts_as_none(model: Path, tmp_path: Path) -> None:
    save_tokenizer(model, eos="<unk>")
    edit_config(model, eos_token_id=0)
    (tmp_path / "text.txt").write_text("<unk>" * 8, "utf-8")
    windows, eos = tensors(model, "text", tmp_path / "text.txt")
    assert windows["block"].tolist() == [[0] * 8]
    assert eos is None
    file = write_tokens(tmp_path / "tokens.json", width=[[0, 0, 0]])
    assert tensors(model, "tokens", file)[1] is None


@pytest.mark.parametrize("kind", ["block", "width"])
@pytest.mark.parametrize("window", [[3, 3, 3, 3], [5, 3, 3, 3]])
def test_a_window_without_a_target_that_counts_is_refused(
    kind: str, window: list[int], model: Path, tmp_path: Path
) -> None:
    file = write_tokens(tmp_path / "tokens.json", **{kind: [[5, 6, 7, 8], window]})
    (problem,) = problems_of(lambda: tensors(model, "tokens", file))
    assert problem == f"calibration: a {kind} window holds nothing but end-of-sequence tokens (3)"


def test_a_window_with_one_target_that_counts_is_taken(model: Path, tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "tokens.json", block=[[3, 3, 3, 5]])
    windows, _ = tensors(model, "tokens", file)
    assert windows["block"].tolist() == [[3, 3, 3, 5]]


# ---- once


def test_windows_are_prepared_once_until_a_file_they_depend_on_changes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(ROWS))
    cut: list[int] = []

    def counted(tokenizer: Any, rows: Any, seqlen: int, *more: Any) -> Tensor:
        cut.append(seqlen)
        return cut_windows(tokenizer, rows, seqlen, *more)

    monkeypatch.setattr(calibration, "cut_windows", counted)
    first = prepared(model, "text", file)
    assert prepared(model, "text", file) == first
    assert cut == [8, 8], "those for blocks, those for widths"
    assert prepared(model, "text", file, seqlen=9) != first
    file.write_text("\n\n".join(reversed(ROWS)))
    assert prepared(model, "text", file) != first
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    prepared(model, "text", file)
    edit_config(model, vocab_size=5)
    with pytest.raises(ConfigError, match="not in the model's vocabulary of 5"):
        prepared(model, "text", file)
    assert len(cut) == 5 * 2


# ---- the stage


def test_token_ids_are_taken_as_they_are(model: Path, tmp_path: Path) -> None:
    """Nothing is drawn or cut: numbers of rows, windows and tokens do not apply."""
    block, width = [[5, 6, 7], [0, 103, 9]], [[1, 2, 3, 4, 5]]
    file = write_tokens(tmp_path / "tokens.json", block, width)
    windows, _ = tensors(model, "tokens", file, block_windows=1, block_samples=1, seqlen=2)
    assert windows["block"].dtype == torch.int64
    assert {kind: ids.tolist() for kind, ids in windows.items()} == {"block": block, "width": width}


def run_stage(model: Path, file: Path, out: Path) -> dict[str, Any]:
    """Run the stage on token ids, and return what it says of them."""
    config = configured("calibration=tokens", f"calibration.path={file}")
    nothing: Any = None  # calibrate runs no model
    unused = (nothing, nothing, out, nothing, {}, nothing)
    inputs = Inputs(nothing, source(model), "", nothing, {}, *unused)
    out.mkdir()
    return calibrate.run(config, inputs, out)


def test_the_stage_keeps_the_windows_and_says_what_they_are(model: Path, tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "tokens.json", block=[[5, 6, 7], [8, 9, 10]], width=[[5, 6]])
    facts = run_stage(model, file, tmp_path / "out")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "calibration.json",
        "tokens.safetensors",
    ]
    assert facts == read_json(tmp_path / "out" / "calibration.json")
    assert facts["eos_id"] == 3
    assert [(facts[k]["windows"], facts[k]["seqlen"]) for k in ("block", "width")] == [
        (2, 3),
        (1, 2),
    ]
    read = Calibration.read(tmp_path / "out")
    assert read.of("block").ids.tolist() == [[5, 6, 7], [8, 9, 10]]
    assert read.of("width").ids.tolist() == [[5, 6]]
    assert read.of("block").eos_id == read.of("width").eos_id == 3
    assert read.hashes == {kind: facts[kind]["sha256"] for kind in ("block", "width")}


def hashes(facts: dict[str, Any]) -> list[str]:
    return [facts["block"]["sha256"], facts["width"]["sha256"]]


def test_the_hashes_stand_for_the_tokens_and_not_for_where_they_came_from(
    model: Path, tmp_path: Path
) -> None:
    file = write_tokens(tmp_path / "tokens.json")
    facts = run_stage(model, file, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.copy(file, tmp_path / "elsewhere" / "other.json"))
    again = run_stage(Path(shutil.copytree(model, tmp_path / "m2")), moved, tmp_path / "again")
    assert hashes(again) == hashes(facts)


def test_the_hash_of_the_windows_that_changed_changes(model: Path, tmp_path: Path) -> None:
    first = run_stage(model, write_tokens(tmp_path / "a.json"), tmp_path / "a")
    changed = write_tokens(tmp_path / "b.json", width=[[5, 6, 7, 9]])
    block, width = hashes(run_stage(model, changed, tmp_path / "b"))
    assert block == hashes(first)[0]
    assert width != hashes(first)[1]


def test_the_hash_tells_windows_of_other_lengths_apart(model: Path, tmp_path: Path) -> None:
    one = write_tokens(tmp_path / "a.json", block=[[5, 6, 7, 8]], width=[[5, 6], [7, 8]])
    block, width = hashes(run_stage(model, one, tmp_path / "a"))
    assert block != width


def test_the_hashes_change_with_the_id_that_does_not_count(model: Path, tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "tokens.json")
    before = hashes(run_stage(model, file, tmp_path / "before"))
    edit_config(model, eos_token_id=4)
    after = hashes(run_stage(model, file, tmp_path / "after"))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_ids_of_0_and_none_have_the_same_hashes(model: Path, tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "tokens.json")
    edit_config(model, eos_token_id=0)
    zero = hashes(run_stage(model, file, tmp_path / "zero"))
    edit_config(model, eos_token_id=None)
    assert hashes(run_stage(model, file, tmp_path / "none")) == zero
