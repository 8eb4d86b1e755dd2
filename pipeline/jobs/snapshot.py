"""The code that jobs run: a copy made at submission; what is edited later has no say."""

import hashlib
import shutil
import uuid
from pathlib import Path

import pipeline
from pipeline.settings.section import BUILTIN

PACKAGE = Path(pipeline.__file__).parent


def snapshot(root: Path) -> Path:
    """A folder under ``root`` that has the package as it is now, named by its content.

    It gets its name when it is whole: a copy that was cut off is never used. Equal code is copied
    once.
    """
    files = [
        path
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.is_relative_to(BUILTIN)
    ]
    contents = {path.relative_to(PACKAGE): path.read_bytes() for path in files}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    folder = root / digest.hexdigest()[:20]
    if folder.exists():
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
