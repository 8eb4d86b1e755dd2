"""Text files and .jsonl files, read with errors that name file and line."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import Json


def read_text(path: Path) -> str:
    """The text of a file. Raises ``ConfigError`` where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not UTF-8 text (byte {error.start})"]) from error
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from error


def json_lines(path: Path) -> Iterator[tuple[str, Json]]:
    """Lines of a .jsonl file that are not blank: the place of each, for messages, and its value.

    Raises ``ConfigError`` as ``read_text`` does, and for a line that is not JSON.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        place = f"{path}, line {number}"
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError([f"{place} is not JSON: {error}"]) from error
            yield place, value


def read_rows(path: Path, fields: Sequence[str], most: int | None) -> list[dict[str, Any]]:
    """The first ``most`` rows (None: all) of a .jsonl file, reduced to ``fields``.

    Raises ``ConfigError`` that names the line which is no JSON object or lacks a field, and where
    there is no row at all.
    """
    rows = [_row(place, row, fields) for place, row in islice(json_lines(path), most)]
    if not rows:
        raise ConfigError([f"{path} has no rows"])
    return rows


def _row(place: str, row: Json, fields: Sequence[str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError([f"{place} is not a JSON object"])
    if lacking := [field for field in fields if field not in row]:
        raise ConfigError([f"{place} lacks {', '.join(lacking)} (it has {', '.join(row)})"])
    return {field: row[field] for field in fields}
