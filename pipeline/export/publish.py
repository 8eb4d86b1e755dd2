"""A folder that appears whole under its name, or not at all."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files import encode, read_json, remove_leftovers
from pipeline.pruning.origin import FILE as MARKER


def taken(folder: Path, owner: str) -> str | None:
    """Why an export of ``owner`` cannot go into ``folder``, in words; None where it can."""
    if not folder.exists() and not folder.is_symlink():
        return None
    try:
        is_own = read_json(folder / MARKER)["owner"] == owner
    except (OSError, ValueError, KeyError, TypeError):
        is_own = False
    return None if is_own else f"{folder} is there, and is no export of this run; choose another"


def publish(
    files: Path, folder: Path, more: Mapping[str, bytes], owner: str, about: Mapping[str, object]
) -> None:
    """Give ``folder`` the files of another folder and some more, in place of what it was.

    A folder that is no export of ``owner`` is never replaced. Files of the same disk are shared,
    not copied. Raises ``ConfigError`` where something else is there.
    """
    if problem := taken(folder, owner):
        raise ConfigError([f"export.dir: {problem}"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("tmp", "old"):
        remove_leftovers(folder.parent, f".{folder.name}.*.{kind}")
    mark = uuid.uuid4().hex[:8]
    fresh = folder.with_name(f".{folder.name}.{mark}.tmp")
    old = folder.with_name(f".{folder.name}.{mark}.old")
    try:
        shutil.copytree(files, fresh, copy_function=_share)
        for name, content in more.items():
            (fresh / name).write_bytes(content)
        (fresh / MARKER).write_text(encode({"owner": owner, **about}), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _share(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
