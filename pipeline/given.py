"""Files and folders that users name: what is wrong with them, in words; and reading them."""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files import Json

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What may be where a file is expected; to read a pipe would wait for ever."""
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
SURROGATE = re.compile(r"[\ud800-\udfff]")
MAY_HOLD_SURROGATES = re.compile(r"\\u[dD][89a-fA-F]")
"""UTF-8 has none; JSON can write them with a backslash."""


def file_problem(path: str | Path) -> str | None:
    """What keeps a file from being read, as a clause that follows its name; None if nothing."""
    try:
        kind = stat.S_IFMT(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:
        return _not_reached(path, error)
    if kind in KINDS:
        return f"is {KINDS[kind]}, not a file"
    return None if os.access(path, os.R_OK) else "cannot be read: permission denied"


def folder_problem(path: str | Path) -> str | None:
    """What keeps a folder from being read, as a clause that follows its name; None if nothing."""
    try:
        kind = stat.S_IFMT(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:
        return _not_reached(path, error)
    if kind != stat.S_IFDIR:
        return f"is {KINDS.get(kind, 'a file')}, not a folder"
    return None if os.access(path, os.R_OK | os.X_OK) else "cannot be read: permission denied"


def why_unwritable(path: str | Path) -> str | None:
    """What keeps a folder from being made or written to, as a clause that follows its name."""
    whole = Path(path).absolute()
    for folder in (whole, *whole.parents):
        try:
            folder.lstat()
            kind = stat.S_IFMT(folder.stat().st_mode)
        except (OSError, ValueError) as error:
            is_absent = isinstance(error, OSError) and error.errno in ABSENT
            if is_absent and not folder.is_symlink():
                continue  # its parent may be there
            return f"cannot be made: {folder} {_not_reached(folder, error)}"
        return _why_unwritable_folder(folder, kind)
    raise AssertionError("there is no /")


def _why_unwritable_folder(folder: Path, kind: int) -> str | None:
    if kind != stat.S_IFDIR:
        return f"cannot be made: {folder} is {KINDS.get(kind, 'a file')}"
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"cannot be written: {folder} is on a file system that is mounted read-only"
    return f"cannot be written: no permission in {folder}"


def _not_reached(path: str | Path, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):  # e.g. a NUL in it
        return "is no path that a file can have"
    if error.errno == errno.ELOOP:
        return "is a link in a circle"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "is a link that leads nowhere" if Path(path).is_symlink() else "does not exist"
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def read_text(path: str | Path) -> str:
    """The text of a file. Raises ``ConfigError`` where it cannot be read or is not UTF-8."""
    return _text_of(path, "UTF-8 text ")


def read_json(path: str | Path) -> Json:
    """The value in a JSON file. Raises ``ConfigError`` as ``read_text`` and ``parse`` do."""
    return parse(_text_of(path, "a JSON file: it is no UTF-8 text "), str(path), "a JSON file")


def _text_of(path: str | Path, what: str) -> str:
    if problem := file_problem(path):
        raise ConfigError([f"{path} {problem}"])
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not {what}(byte {error.start})"]) from error
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from error


def read_object(path: str | Path) -> dict[str, Json]:
    """The object in a JSON file. Raises ``ConfigError`` also for another value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError([f"{path} is not a JSON object"])
    return value


def parse(text: str, place: str, what: str = "JSON") -> Json:
    """The value that JSON text stands for. Raises ``ConfigError`` that names ``place``.

    So it does for what Python would take and nothing else can: text that is no Unicode.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{place} is not {what}: {error}"]) from error
    except RecursionError:
        raise ConfigError([f"{place} cannot be read: it is nested too deeply"]) from None
    except ValueError:
        raise ConfigError([f"{place} cannot be read: a number has too many digits"]) from None
    if MAY_HOLD_SURROGATES.search(text) and any(map(SURROGATE.search, _texts(value))):
        raise ConfigError([f"{place} holds half of a surrogate pair, which is no character"])
    return value


def _texts(value: Json) -> Iterator[str]:
    """All texts in a value, the names of keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
