"""Trackers: the local file that every run has, and several trackers as one."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.files import replace
from pipeline.tracking.metrics import Metrics, Value


@dataclass(frozen=True, slots=True)
class Exported:
    """A model in files."""

    name: str
    folder: Path
    key: str
    """Equal for equal files."""
    aliases: tuple[str, ...]
    upload: bool
    """Whether the files go along; else it is said where they are."""
    facts: Mapping[str, Any]


class Tracker(Protocol):
    """Is told a run's metrics, from the first step again after every restart."""

    def log(self, metrics: Metrics) -> None:
        """One row. Rows come in the order of ``prune/step``, one for every step."""

    def summary(self, values: Metrics) -> None:
        """What stands for the whole run; a later value replaces an earlier one of its name."""

    def table(
        self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Value | None]]
    ) -> None:
        """A table, once, after the last step."""

    def picture(self, name: str, path: Path) -> None:
        """A picture file, once, after the last step."""

    def page(self, name: str, path: Path) -> None:
        """A page of HTML in one file, once, after the last step."""

    def files(self, name: str, paths: Sequence[Path]) -> None:
        """Files that belong together: what was decided. Once, after the last step."""

    def model(self, exported: Exported) -> None:
        """A folder with a model that was exported, once, after the last step."""

    def alert(self, title: str, text: str) -> None:
        """Something that a person wants to be told wherever they are."""

    def preempting(self) -> None:
        """The run will be interrupted by the cluster and come back. ``finish`` follows at once."""

    def finish(self, failed: bool) -> None:
        """Nothing more comes from this process. Harmless the second time."""


class LocalTracker:
    """One JSON object a line, every line whole, in a file that each start writes anew.

    The replay that follows a start fills it again. The file is replaced rather than emptied, so a
    process that lost the run to another one goes on writing into a file that has no name any more.
    Only ``log`` leaves something here: the rest has files of its own in the run's folder.
    """

    def __init__(self, path: Path) -> None:
        replace(path, "")
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._bytes_written = 0

    def log(self, metrics: Metrics) -> None:
        """Append one line. Raises ``OSError`` where the disk refuses, with no part of it left."""
        line = (json.dumps(dict(metrics), allow_nan=False) + "\n").encode()
        # One write: a killed process has written all of the line or nothing.
        if (written := os.write(self._file, line)) < len(line):
            os.ftruncate(self._file, self._bytes_written)
            raise OSError(f"only {written} of {len(line)} bytes of a line could be written")
        self._bytes_written += len(line)

    def summary(self, values: Metrics) -> None:
        """``summary.json`` has it."""

    def table(
        self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Value | None]]
    ) -> None:
        """``steps.jsonl`` has it."""

    def picture(self, name: str, path: Path) -> None:
        """The file is there already."""

    def page(self, name: str, path: Path) -> None:
        """The file is there already."""

    def files(self, name: str, paths: Sequence[Path]) -> None:
        """They are there already."""

    def model(self, exported: Exported) -> None:
        """The folder is there already."""

    def alert(self, title: str, text: str) -> None:
        """``summary.json`` has it."""

    def preempting(self) -> None:
        """Every line is on disk."""

    def finish(self, failed: bool) -> None:  # noqa: ARG002
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def log(self, metrics: Metrics) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.log(metrics)

    def summary(self, values: Metrics) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.summary(values)

    def table(
        self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Value | None]]
    ) -> None:
        """To all."""
        kept = tuple(rows)
        for tracker in self._trackers:
            tracker.table(name, columns, kept)

    def picture(self, name: str, path: Path) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.picture(name, path)

    def page(self, name: str, path: Path) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.page(name, path)

    def files(self, name: str, paths: Sequence[Path]) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.files(name, paths)

    def model(self, exported: Exported) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.model(exported)

    def alert(self, title: str, text: str) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.alert(title, text)

    def preempting(self) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.preempting()

    def finish(self, failed: bool) -> None:
        """To all."""
        for tracker in self._trackers:
            tracker.finish(failed)
