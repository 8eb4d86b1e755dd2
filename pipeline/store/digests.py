"""SHA-256 of large files, taken once."""

import functools
import threading
from functools import partial
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.files import Json, key_of, mended, read_sealed, replace, sealed, sha256_of_file

_OF_EACH: dict[Path, threading.Lock] = {}
"""So that several threads hash several files, and each file once."""


class Digests:
    """SHA-256 of files, remembered while their path, size and time of change stay.

    In this process by ``of``, for other processes by ``save``. May be used by several threads.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unsaved: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """The digest of a file."""
        stat = path.stat()
        real = path.resolve()
        version = {"path": str(real), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        entry = self.folder / f"{key_of(version)}.json"
        known = _read(entry)
        if known is None or {**known, **version} != known:
            with _OF_EACH.setdefault(real, threading.Lock()):
                digest = _sha256(real, stat.st_size, stat.st_mtime_ns)
            self._unsaved[entry] = sealed({**version, "sha256": digest}, entry.name)
            return digest
        return str(known["sha256"])

    def save(self) -> None:
        """Remember on disk what is not there yet."""
        unsaved, self._unsaved = self._unsaved, {}
        for entry, text in unsaved.items():
            mended(partial(replace, entry, text), lambda _: None)


def remembered(entry: Path) -> dict[str, Json] | None:
    """What a file of the folder has. Raises ``DamagedError``."""
    return read_sealed(entry, entry.name, must=True)


def _read(entry: Path) -> dict[str, Json] | None:
    """The same; None where it is broken, too: it is only a cache."""
    try:
        return remembered(entry)
    except (DamagedError, OSError):
        return None


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_of_file(path)
