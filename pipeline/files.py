"""Files that are whole, absent or known to be damaged, and how values become keys.

What is stored is sealed: it carries a digest of its content and of the place that it is for. A
reader gets the content, or None where there is none, or ``DamagedError``; ``mended`` sets aside
what is damaged and has the work begin again.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import DamagedError, PipelineError

Json = Any  # what json.loads returns
T = TypeVar("T")
SEAL = "seal"
"""The key under which an object has its seal."""
ASIDE = ".damaged"
"""What the name of a file ends in that was set aside."""
LEFT_S = 3600
"""Seconds after which what is half published was left by somebody who is gone."""


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


def content_of(path: Path) -> bytes | None:
    """What is in a file of ours; None where there is none.

    Raises ``DamagedError`` where there is something else in its place, which is not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise DamagedError(path, "a link that leads nowhere is in its place") from None
        return None
    except NotADirectoryError:
        raise DamagedError(_no_folder_above(path), "a file is in the place of a folder") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EIO, errno.ENXIO):
            damaged = _no_folder_above(path)
            raise DamagedError(damaged, f"it cannot be read: {error.strerror}") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "something that is no file"
        raise DamagedError(path, f"{kind} is in its place")
    with os.fdopen(descriptor, "rb") as stream:
        try:
            return stream.read()
        except OSError as error:
            raise DamagedError(path, f"it cannot be read: {error.strerror}") from error


def _no_folder_above(path: Path) -> Path:
    """The folder nearest to the root, of those that ``path`` is in, in whose place is none."""
    above = reversed(path.parents)
    return next((each for each in above if os.path.lexists(each) and not each.is_dir()), path)


def understood(path: Path, parse: Callable[[], T]) -> T:
    """What ``parse`` makes of the content of ``path``; ``DamagedError`` where it cannot."""
    try:
        return parse()
    except DamagedError:
        raise
    except PipelineError as error:
        raise DamagedError(path, str(error)) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise DamagedError(path, "what is in it has another form than what was written") from None


def read_object(path: Path) -> dict[str, Json] | None:
    """The JSON object in a file of ours; None where there is none. Raises ``DamagedError``."""
    content = content_of(path)
    if content is None:
        return None
    if not content:
        raise DamagedError(path, "it is empty")
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise DamagedError(path, "it is cut short or garbled, no JSON") from None
    if not isinstance(value, dict):
        raise DamagedError(path, f"it holds no object but {type(value).__name__}")
    return value


def sealed(content: Mapping[str, Json], place: str) -> str:
    """The text of an object with its seal, which holds only for ``place``."""
    plain = json.loads(encode(dict(content)))
    return encode({**plain, SEAL: _seal(plain, place)})


def read_sealed(path: Path, place: str, *, must: bool = False) -> dict[str, Json] | None:
    """The object in a sealed file, without the seal; None where there is none.

    Raises ``DamagedError`` where the seal does not fit the content or ``place``. Files of earlier
    versions have no seal, and are read where it is not a ``must``.
    """
    content = read_object(path)
    if content is None:
        return None
    seal = content.pop(SEAL, None)
    if seal is None and must:
        raise DamagedError(path, "it has lost its digest")
    if seal is not None and seal != understood(path, lambda: _seal(content, place)):
        raise DamagedError(path, "its content is not what was written there")
    return content


def publish_sealed(path: Path, content: Mapping[str, Json], place: str) -> bool:
    """Publish with a seal. Raises ``DamagedError`` where a damaged file has the name."""
    is_new = publish(path, sealed(content, place))
    if not is_new:
        read_sealed(path, place)
    return is_new


def _seal(content: Json, place: str) -> str:
    return hashlib.sha256(f"{place}\n{_canonical(content)}".encode()).hexdigest()


def set_aside(damage: DamagedError) -> str:
    """Take what is damaged out of the way, under a name that nobody reads; say so in one line."""
    path = damage.path
    if damage.voided and damage.voided != path:
        damage.voided.unlink(missing_ok=True)
    if not os.path.lexists(path):
        return str(damage)
    number, aside = 1, path.with_name(path.name + ASIDE)
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.{number}{ASIDE}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return f"{damage}; another process has set it aside"
    return f"{damage}; set aside as {aside.name}"


def mended(work: Callable[[], T], warn: Callable[[str], None]) -> T:
    """Do ``work``; whatever it finds damaged is set aside, and it begins again.

    ``warn`` is told of each. Raises ``DamagedError`` for what is damaged again.
    """
    before: set[Path] = set()
    while True:
        try:
            return work()
        except DamagedError as damage:
            if damage.path in before:
                raise
            before.add(damage.path)
            warn(f"{set_aside(damage)}; it is made again where it is needed")


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
    except IsADirectoryError:
        temporary.unlink()
        raise DamagedError(path, "a folder is in its place") from None
    except OSError:
        temporary.unlink()
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what processes left in ``folder`` that were killed while they published."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_temporary(path: Path, content: str | bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
            raise
        raise DamagedError(_no_folder_above(path), "a file is in the place of a folder") from None
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
    return hashlib.sha256(_canonical(payload).encode()).hexdigest()[:20]


def _canonical(value: Json) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """The same of a file of ours, taken once while its size and time of change stay."""
    state = path.stat()
    return _digest(path, state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, _inode: int, _size: int, _mtime_ns: int) -> str:
    return sha256_of_file(path)
