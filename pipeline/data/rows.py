""".jsonl files, read with errors that name file and line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.given import parse, read_text

SEED = 42
"""The reference's, of its draw of rows and of its splits of Alpaca."""

IN_WIKITEXT2_TEST = "He had a guest @-@ starring role on the television series The Bill in 2000"
"""Stands in WikiText-2's test text alone."""


def json_lines(path: Path) -> Iterator[tuple[str, Json]]:
    """Lines of a .jsonl file that are not blank: the place of each, for messages, and its value.

    Raises ``ConfigError`` as ``pipeline.given.read_text`` does, and for a line that is not JSON.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        place = f"{path}, line {number}"
        if line.strip():
            yield place, parse(line, place)


Check = Callable[[Mapping[str, Json]], str | None]
"""What is wrong with a row, in words; None where nothing is."""


def read_rows(
    path: Path, fields: Sequence[str], most: int | None, check: Check = lambda _: None
) -> list[dict[str, Any]]:
    """The first ``most`` rows (None: all) of a .jsonl file, reduced to ``fields``, if any.

    Raises ``ConfigError`` that names the line which is no JSON object, lacks a field or does not
    pass ``check``, and where there is no row at all.
    """
    rows = [_row(place, row, fields, check) for place, row in islice(json_lines(path), most)]
    if not rows:
        raise ConfigError([f"{path} has no rows"])
    return rows


def text_of(place: str, row: Json, field: str, advice: str = "") -> str:
    """The text that a row has in a field. Raises ``ConfigError`` where it has none there."""
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise ConfigError([f"{place} has no text in the field {field!r} ({_keys(row)}){advice}"])
    return text


def _keys(row: Json) -> str:
    if not isinstance(row, dict):
        return "it is no object"
    return f"it has {', '.join(row)}" if row else "it is empty"


def _row(place: str, row: Json, fields: Sequence[str], check: Check) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError([f"{place} is not a JSON object"])
    if lacking := [field for field in fields if field not in row]:
        raise ConfigError([f"{place} lacks {', '.join(lacking)} ({_keys(row)})"])
    if problem := check(row):
        raise ConfigError([f"{place}: {problem}"])
    return {field: row[field] for field in fields or row}
