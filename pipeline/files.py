"""Files that are either whole or absent, and the one way a value is turned into a key."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Json = Any  # what json.loads returns


def is_file(path: str | Path) -> bool:
    """Whether there is such a file. A path that no file can have is none, and raises nothing."""
    return os.path.isfile(path)  # noqa: PTH113 - pathlib raises for a name that is too long


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder. A path that no folder can have is none."""
    return os.path.isdir(path)  # noqa: PTH112


def read_json(path: Path) -> Json:
    """Parse ``path``. Raises ``FileNotFoundError`` where it does not exist."""
    return json.loads(path.read_text(encoding="utf-8"))


def encode(value: Json) -> str:
    """JSON for people and programs. NaN and infinity raise ``ValueError``: JSON has neither."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def publish(path: Path, text: str) -> bool:
    """Write ``text`` to ``path`` unless the path exists; say whether this call wrote it.

    The text goes to a temporary name, is synced, and gets its name by a hard link, which fails
    where the name is taken: the first of several writers wins and no reader sees half a file.
    """
    temporary = _write_temporary(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _sync_folder(path.parent)
    return True


def replace(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` in one go, in place of what is there."""
    temporary = _write_temporary(path, content)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    _sync_folder(path.parent)


def _write_temporary(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def key_of(payload: Mapping[str, Json]) -> str:
    """The key (20 hexadecimal digits) of a payload of plain JSON values.

    Equal payloads have equal keys in every process and on every machine. A value that has no
    canonical JSON form raises ``TypeError`` (or ``ValueError``, for NaN and infinity).
    """
    canonical = json.dumps(
        payload, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
