"""SHA-256 of large files, taken once."""

import functools
import threading
from pathlib import Path

from pipeline.files import encode, key_of, read_json, replace, sha256_of_file

_ONE_AT_A_TIME = threading.Lock()


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
        version = {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        entry = self.folder / f"{key_of(version)}.json"
        try:
            return str(read_json(entry)["sha256"])
        except (OSError, ValueError, LookupError, TypeError):  # absent, or broken: only a cache
            with _ONE_AT_A_TIME:
                digest = _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)
            self._unsaved[entry] = encode({**version, "sha256": digest})
            return digest

    def save(self) -> None:
        """Remember on disk what is not there yet."""
        unsaved, self._unsaved = self._unsaved, {}
        for entry, text in unsaved.items():
            replace(entry, text)


@functools.lru_cache(maxsize=1024)
def _sha256(path: str, _size: int, _mtime_ns: int) -> str:
    return sha256_of_file(Path(path))
