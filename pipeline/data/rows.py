"""Rows of the .jsonl files that are measured on."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError


def read_rows(path: Path, fields: Sequence[str], most: int | None) -> list[dict[str, Any]]:
    """The first ``most`` rows (None: all) of a .jsonl file, reduced to ``fields``.

    Raises ``ConfigError`` that names the line which is no JSON object or lacks a field, and where
    there is no row at all.
    """
    try:
        rows = list(islice(_rows(path, fields), most))
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not UTF-8 text (byte {error.start})"]) from error
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from error
    if not rows:
        raise ConfigError([f"{path} has no rows"])
    return rows


def _rows(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _row(f"{path}, line {number}", line, fields)


def _row(where: str, line: str, fields: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{where} is not JSON: {error}"]) from error
    if not isinstance(row, dict):
        raise ConfigError([f"{where} is not a JSON object"])
    if lacking := [field for field in fields if field not in row]:
        raise ConfigError([f"{where} lacks {', '.join(lacking)} (it has {', '.join(row)})"])
    return {field: row[field] for field in fields}
