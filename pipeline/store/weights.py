"""Models that take long to read from their own file, kept for the next time.

A folder has weights in safetensors and what goes with them, and ``files.json`` with their digests,
written last.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.files import (
    digest_of,
    key_of,
    mended,
    publish_sealed,
    read_sealed,
    remove_leftovers,
)
from pipeline.store.digests import Digests
from pipeline.store.listing import damaged, listed

MARKER = "files.json"


class KeptWeights:
    """The models of GGUF files, by a file's content and the number format they were read in."""

    def __init__(self, root: Path, digests: Digests) -> None:
        self.root, self._digests = root, digests

    def find(self, file: Path, dtype: str) -> Path | None:
        """The folder with what a file holds; None where nobody kept it.

        What is damaged is set aside: it can be made again.
        """
        folder = self._folder(file, dtype)

        def whole() -> bool:
            for damage in damages(folder, self._digests.of):
                raise damage
            return (folder / MARKER).exists()

        is_kept = mended(whole, lambda _: None)
        self._digests.save()
        return folder if is_kept else None

    def keep(self, file: Path, dtype: str, write: Callable[[Path], None]) -> None:
        """Keep what ``write`` writes into the folder that it is given.

        Without room on the disk nothing is kept.
        """
        folder = self._folder(file, dtype)
        temporary = folder / f".{uuid.uuid4().hex[:8]}.tmp"
        remove_leftovers(folder, ".*.tmp")
        try:
            temporary.mkdir(parents=True)
            write(temporary)
            files = {}
            for path in sorted(temporary.iterdir()):
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
                files[path.name] = listed(path)
            for name in files:
                (temporary / name).replace(folder / name)
            publish_sealed(folder / MARKER, {"files": files}, _place(folder))
        except OSError:
            return
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _folder(self, file: Path, dtype: str) -> Path:
        return self.root / key_of({"file": self._digests.of(file), "dtype": dtype})


def damages(folder: Path, digest: Callable[[Path], str] = digest_of) -> Iterator[DamagedError]:
    """What is wrong with a folder of a kept model."""
    marker = folder / MARKER
    try:
        kept = read_sealed(marker, _place(folder), must=True) or {"files": {}}
    except DamagedError as damage:
        yield damage
        return
    yield from damaged(folder, kept["files"], digest, marker)


def _place(folder: Path) -> str:
    return f"{folder.name}/{MARKER}"
