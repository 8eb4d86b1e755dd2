"""Windows of a held-out text, and the perplexity that is taken on them."""

import math
from pathlib import Path

import pytest
from support_inputs import CHARACTERS, problems_of, save_tokenizer, spelled, write_jsonl
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.data.datasets import wikitext_rows
from pipeline.errors import StageError
from pipeline.measure.text import KNOWN, Text, text_windows
from pipeline.scoring.one_pass import perplexity

WIKITEXT = " \n = Title = \n \n A line . \n Another . \n"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """One token a character; ``</s>`` is one token, too."""
    return AutoTokenizer.from_pretrained(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "wikitext2").mkdir(parents=True)
    (folder / "wikitext2" / "wiki.test.raw").write_text(WIKITEXT, encoding="utf-8")
    return folder


# ---- rows


def text(source: str, most_tokens: int | None = None) -> Text:
    return Text("name", source, most_tokens, 4)


def text_rows(source: str, data_dir: Path | None) -> list[str]:
    return text(source).rows(data_dir)


def missing_text(source: str, data_dir: Path | None) -> list[str]:
    return text(source).missing(data_dir)


def test_wikitext2_has_the_rows_that_the_hub_has(data_dir: Path) -> None:
    rows = ["", " = Title = \n", "", " A line . \n", " Another . \n"]
    assert text_rows("wikitext2", data_dir) == rows == wikitext_rows(WIKITEXT)


def test_wikitext2_comes_from_the_hub_without_a_folder(monkeypatch) -> None:
    asked = []

    def load_dataset(*names: object, split: str, **_: object) -> dict[str, list[str]]:
        asked.append((*names, split))
        return {"text": ["a row"]}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert text_rows("wikitext2", None) == ["a row"]
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test")]


def test_c4_is_as_many_documents_as_everyone_takes(tmp_path: Path) -> None:
    (tmp_path / "c4").mkdir()
    rows = [{"text": f"Document {i}."} for i in range(1200)]
    write_jsonl(tmp_path / "c4" / "validation.jsonl", rows)
    assert text_rows("c4", tmp_path) == [row["text"] for row in rows[:1100]]
    assert (text("c4").title, text("c4").split) == ("C4", "validation")


def test_a_text_file_is_one_row_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One.\n\n\nTwo.\n", encoding="utf-8")
    assert text_rows(str(path), None) == ["One.\n\n\nTwo.\n"]


def test_a_jsonl_file_gives_the_text_of_each_row(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "text.jsonl", [{"text": "One.", "id": 1}, {"text": "Two."}])
    assert text_rows(str(path), None) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b'{"text": "One."}\n{"body": "Two."}\n', "line 2 lacks text (it has body)"),
        ("a.jsonl", b'{"text": "One."}\nTwo.\n', "line 2 is not JSON"),
        ("a.jsonl", b'["One."]\n', "line 1 is not a JSON object"),
        ("a.jsonl", b"\n", "has no rows"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8 text (byte 10)"),
        ("a.txt", b"One.\xff", "not UTF-8 text (byte 4)"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (said,) = problems_of(lambda: text_rows(str(path), None))
    assert said.startswith(str(path))
    assert problem in said


def test_a_text_that_is_missing_is_named_with_the_path_expected(tmp_path: Path) -> None:
    expected = f"wikitext2: the file {tmp_path}/wikitext2/wiki.test.raw does not exist"
    assert missing_text("wikitext2", tmp_path) == [expected]
    assert problems_of(lambda: text_rows("wikitext2", tmp_path)) == [expected]
    (problem,) = missing_text("nowhere.txt", None)
    assert problem.startswith("nowhere.txt: the file nowhere.txt does not exist")


def test_nothing_is_missing_where_the_text_is_there(data_dir: Path) -> None:
    assert missing_text("wikitext2", data_dir) == []
    assert missing_text("wikitext2", None) == []
    assert missing_text(str(data_dir / "wikitext2" / "wiki.test.raw"), None) == []


# ---- windows


def test_rows_are_joined_by_an_empty_line_and_cut_into_full_windows(tokenizer) -> None:
    windows = text_windows(tokenizer, ["abc", "def", "g"], seqlen=4)
    assert spelled(windows.ids) == ["abc\n", "\ndef"]


@pytest.mark.parametrize(("most", "count"), [(None, 6), (100, 6), (24, 6), (23, 5), (4, 1)])
def test_no_more_tokens_are_used_than_asked_for(tokenizer, most, count) -> None:
    windows = text_windows(tokenizer, ["abcdefghijklmnopqrstuvwxyz"], 4, most)
    assert spelled(windows.ids) == ["abcd", "efgh", "ijkl", "mnop", "qrst", "uvwx"][:count]


@pytest.mark.parametrize(("most", "whole"), [(None, True), (28, True), (27, False), (24, False)])
def test_a_text_is_whole_where_more_might_have_been_taken(most: int | None, whole: bool) -> None:
    assert text("a.txt", most).is_whole(24) is whole


def test_a_text_that_fills_no_window_says_what_it_has(tokenizer) -> None:
    (problem,) = problems_of(lambda: text_windows(tokenizer, ["abc"], 4))
    assert problem.startswith("the text has 3 tokens, and one window needs 4")
    (problem,) = problems_of(lambda: text_windows(tokenizer, ["abcdef"], 4, 3))
    assert problem.startswith("the text has 6 tokens, of which at most 3 are used, and one window")


def test_every_target_counts_and_windows_count_alike(build, tokenizer) -> None:
    model = build(eos_token_id=CHARACTERS.index("</s>"))
    windows = text_windows(tokenizer, ["an end</s> inside", "of a window"], 8)
    losses = [
        cross_entropy(model.model(ids[None]).logits[0, :-1], ids[1:]).item() for ids in windows.ids
    ]
    assert CHARACTERS.index("</s>") in windows.ids[:, 1:]
    expected = math.exp(sum(losses) / len(losses))
    assert perplexity(model, windows) == pytest.approx(expected, rel=1e-5)


def test_perplexity_changes_with_the_state(pruned, tokenizer) -> None:
    windows = text_windows(tokenizer, ["some text that is long enough for this"], 8)
    dense, narrow = (perplexity(pruned(**state), windows) for state in ({}, {"mlp_widths": {0: 8}}))
    assert dense != narrow


def test_wikitext2_reads_as_the_hubs_rows_do(shared: Path) -> None:
    rows = text_rows("wikitext2", shared / "data")
    assert len(rows) == 4358
    title = " = Robert Boulter = \n"
    assert "\n\n".join(rows).startswith(f"\n\n{title}\n\n\n\n Robert Boulter is an English film ,")


@pytest.mark.parametrize("source", KNOWN)
def test_without_the_hub_the_message_names_the_local_copy(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(StageError) as error:
        Text(source, source, None, 16).rows(None)
    assert f"DIR/{KNOWN[source].file} with evaluate.data_dir=DIR" in str(error.value)
    assert "calibration" not in str(error.value)
