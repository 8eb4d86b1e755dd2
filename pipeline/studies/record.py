"""``study.json`` in a sweep's folder: what studies proposed, and what came of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import Json, read_sealed, replace, sealed, understood
from pipeline.studies.base import Trial

FILE = "study.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One study on disk."""

    identity: Mapping[str, Json] = field(default_factory=dict)
    """The settings that it began with and keeps to, by what they are called."""
    trials: tuple[Trial, ...] = ()
    """In the order of their numbers."""


def read(folder: Path) -> dict[str, Record]:
    """The studies of a sweep's folder by their labels; none where there are none.

    Raises ``DamagedError``.
    """
    path = folder / FILE
    content = read_sealed(path, FILE, must=True)
    if content is None:
        return {}
    return understood(
        path, lambda: {label: _record(each) for label, each in content["studies"].items()}
    )


def _record(data: Mapping[str, Any]) -> Record:
    return Record(data["identity"], tuple(Trial(**trial) for trial in data["trials"]))


def write(folder: Path, records: Mapping[str, Record]) -> None:
    """Write the studies of a sweep's folder in one go."""
    studies = {label: asdict(record) for label, record in records.items()}
    replace(folder / FILE, sealed({"studies": studies}, FILE))
