"""The code that jobs run: a copy made at submission; what is edited later has no say."""

import hashlib
import shutil
import uuid
from pathlib import Path

import pipeline
from pipeline.errors import DamagedError
from pipeline.settings.section import BUILTIN

PACKAGE = Path(pipeline.__file__).parent


def snapshot(root: Path) -> Path:
    """A folder under ``root`` that has the package as it is now, named by its content.

    It gets its name when it is whole: a copy that was cut off is never used. Equal code is copied
    once. Raises ``DamagedError`` where the copy is not what its name says.
    """
    contents = _contents(PACKAGE)
    folder = root / _key(contents)
    if is_snapshot(folder):
        return folder
    half_made = root / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    for name, content in contents.items():
        path = half_made / PACKAGE.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        half_made.rename(folder)
    except OSError:
        shutil.rmtree(half_made)
        if not folder.exists():
            raise
    return folder


def is_snapshot(folder: Path) -> bool:
    """Whether there is such a copy. Raises ``DamagedError`` where it is not what its name says."""
    if not folder.is_dir():
        return False
    if _key(_contents(folder / PACKAGE.name)) != folder.name:
        raise DamagedError(folder, "the copy of the code is not what it was")
    return True


def _contents(package: Path) -> dict[Path, bytes]:
    """The files of a copy of the package, by their path in it."""
    builtin = package / BUILTIN.name
    return {
        path.relative_to(package): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.is_relative_to(builtin)
    }


def _key(contents: dict[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:20]
