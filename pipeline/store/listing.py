"""Lists of files with their sizes and digests: which of them are still what was written."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.files import Json, content_of, digest_of


def listed(path: Path) -> dict[str, Json]:
    """What a list says of a file."""
    return {"bytes": path.stat().st_size, "sha256": digest_of(path)}


def damaged(
    folder: Path, files: Mapping[str, Json], digest: Callable[[Path], str], marker: Path
) -> Iterator[DamagedError]:
    """Every file of a list, by its name in ``folder``, that is not what was written.

    ``digest`` gives that of a file; each damage voids ``marker``.
    """
    for name, wanted in files.items():
        try:
            _check(folder / name, wanted, digest)
        except DamagedError as damage:
            yield DamagedError(damage.path, damage.reason, voided=marker)


def _check(path: Path, wanted: Json, digest: Callable[[Path], str]) -> None:
    if not path.is_file():
        if content_of(path) is None:
            raise DamagedError(path, "it is missing")
        return
    size = path.stat().st_size
    if size != wanted["bytes"]:
        raise DamagedError(path, f"it has {size} bytes instead of {wanted['bytes']}")
    if digest(path) != wanted["sha256"]:
        raise DamagedError(path, "its content is not what was written there")
