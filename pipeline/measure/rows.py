"""Rows of tasks: read, and refused in words where nothing could be asked of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.rows import read_rows
from pipeline.errors import ConfigError
from pipeline.files import Json

Row = Mapping[str, Any]
OWN_FIELDS = ("context", "choices", "label")


def rows_of_user(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """The first ``limit`` rows (None: all) of a multiple-choice task of the user's own.

    Raises ``ConfigError`` that names the first line of which nothing can be asked.
    """
    return read_rows(path, OWN_FIELDS, limit, _own_problem)


def rows_of_lm_eval(
    path: Path, name: str, fields: tuple[str, ...], limit: int | None
) -> list[dict[str, Any]]:
    """The first ``limit`` rows (None: all) of a local copy of a task of lm-eval's.

    Raises ``ConfigError`` that names the first line that lm-eval could not ask about.
    """
    rows = read_rows(path, fields, limit, PROBLEMS.get(name, lambda _: None))
    for field in fields:
        if len({type(row[field]) for row in rows}) > 1:
            raise ConfigError([f"{path}: {field} is text in some rows and a number in others"])
    return rows


def _own_problem(row: Row) -> str | None:
    context, choices, label = (row[field] for field in OWN_FIELDS)
    if not isinstance(context, str):
        return "context must be text"
    if not isinstance(choices, list) or len(choices) < 2:  # noqa: PLR2004 - a choice has two sides
        return "choices must be a list of two or more texts"
    if not all(isinstance(choice, str) and choice for choice in choices):
        return "choices must be texts that are not empty"
    if type(label) is not int or not 0 <= label < len(choices):
        return f"label must be the place of the right choice, from 0 to {len(choices) - 1}"
    return None


def _not_text(row: Row, *fields: str) -> str | None:
    """The first field that holds no text, in words."""
    return next((f"{name} must be text" for name in fields if not isinstance(row[name], str)), None)


def _are_texts(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _lettered(row: Row, question: str) -> str | None:
    """ARC and OpenBookQA: choices with letters, and the letter of the right one."""
    if problem := _not_text(row, question, "answerKey"):
        return problem
    choices: Row = row["choices"] if isinstance(row["choices"], dict) else {}
    texts, letters = choices.get("text", ()), choices.get("label", ())
    if not _are_texts(texts) or not _are_texts(letters) or len(texts) != len(letters):
        return 'choices must be {"text": [...], "label": [...]}, two lists of as many texts'
    if row["answerKey"].lstrip() not in letters:
        return f"answerKey must be one of {', '.join(letters)}"
    return None


def _boolq(row: Row) -> str | None:
    return _not_text(row, "passage", "question") or _not_a_place(row["label"], 2)


def _hellaswag(row: Row) -> str | None:
    if problem := _not_text(row, "activity_label", "ctx_a", "ctx_b"):
        return problem
    if not _are_texts(row["endings"]):
        return "endings must be a list of texts"
    return _not_a_place(row["label"], len(row["endings"]), may_be_text=True)


def _piqa(row: Row) -> str | None:
    return _not_text(row, "goal", "sol1", "sol2") or _not_a_place(row["label"], 2)


def _winogrande(row: Row) -> str | None:
    if problem := _not_text(row, "sentence", "option1", "option2"):
        return problem
    if "_" not in row["sentence"]:
        return "sentence must have a gap, written _"
    return None if row["answer"] in ("1", "2") else 'answer must be "1" or "2"'


def _not_a_place(label: Json, choices: int, *, may_be_text: bool = False) -> str | None:
    places = range(choices)
    is_place = type(label) is int and label in places
    if is_place or (may_be_text and label in map(str, places)):
        return None
    return f"label must be a number from 0 to {choices - 1}"


PROBLEMS: Mapping[str, Callable[[Row], str | None]] = {
    "arc_challenge": lambda row: _lettered(row, "question"),
    "arc_easy": lambda row: _lettered(row, "question"),
    "boolq": _boolq,
    "hellaswag": _hellaswag,
    "lambada_openai": lambda row: _not_text(row, "text"),
    "openbookqa": lambda row: _lettered(row, "question_stem"),
    "piqa": _piqa,
    "winogrande": _winogrande,
}
"""What is wrong with a row that has all fields, by lm-eval's name of the task."""
