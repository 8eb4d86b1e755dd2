"""What was submitted: records on disk beside the results, written before anything is submitted.

A submission is one call of a scheduler: a job, or several that it numbers. Its folder in the store
has

- ``submission.json``: the intent. Its token is part of the job's name, so that a job whose id was
  never recorded is found again, and an id that was given to another job is noticed;
- ``job.json``: the id, recorded by whoever knows it first;
- ``TASK.start.N.json`` and ``TASK.end.N.json``: what the job itself reports at its Nth restart;
- ``TASK``: the lease that the job's process holds as long as it lives;
- ``TASK.cancelled.json``: the user's wish that it ends.

Every stage has a list of attempts, each of which names a submission and a task of it.
"""

import getpass
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError, DamagedError
from pipeline.files import (
    Json,
    encode,
    key_of,
    publish,
    publish_sealed,
    read_object,
    read_sealed,
    replace,
    sealed,
    understood,
)
from pipeline.store.leases import awaited_lease
from pipeline.store.processes import Process


def now() -> str:
    """The time, for records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Task:
    """One job of a submission: stages of a run, one after the other in one process."""

    run: str
    """The run's folder."""
    stages: Mapping[str, str]
    """Keys of the stages that it computes, by name."""


@dataclass(frozen=True)
class Submission:
    """One or more jobs that were handed over together."""

    folder: Path

    @property
    def token(self) -> str:
        """What the submission is known by."""
        return self.folder.name

    @classmethod
    def intend(cls, store: Path, intent: Mapping[str, Any], tasks: Sequence[Task]) -> "Submission":
        """Record the intent to submit."""
        submission = cls(store / "submissions" / uuid.uuid4().hex[:12])
        submission.folder.mkdir(parents=True, mode=0o755)
        by = {"submitted_by": getpass.getuser(), "host": platform.node(), "time": now()}
        written = {**intent, **by, "tasks": [asdict(task) for task in tasks]}
        path = submission.folder / "submission.json"
        publish_sealed(path, written, submission._place(path))
        return submission

    @cached_property
    def intent(self) -> dict[str, Any]:
        """What was to be submitted. Raises ``DamagedError``."""
        path = self.folder / "submission.json"
        intent = self._read(path)
        if intent is None:
            raise DamagedError(path, "it is missing")
        understood(path, lambda: (intent["cluster"], [Task(**each) for each in intent["tasks"]]))
        return intent

    def _read(self, path: Path) -> dict[str, Any] | None:
        return read_sealed(path, self._place(path))

    def _place(self, path: Path) -> str:
        return f"{self.token}/{path.name}"

    def check(self, index: int) -> None:
        """Raise ``DamagedError`` where a record of it, or of one of its jobs, is damaged."""
        understood(self.folder / "submission.json", lambda: (self.task(index), self.submitted_at))
        understood(self.folder / "job.json", lambda: self.process)
        self.starts(index)
        self.ends(index)

    @property
    def name(self) -> str:
        """What its jobs are called where they run."""
        stages = "+".join(self.task(0).stages)
        return f"{stages}-{self.token}"

    def task(self, index: int) -> Task:
        """One of its jobs."""
        return Task(**self.intent["tasks"][index])

    @property
    def tasks(self) -> int:
        """How many jobs it has."""
        return len(self.intent["tasks"])

    @property
    def executor(self) -> str:
        """Name of the executor that it was handed over to."""
        name: str = self.intent["cluster"]
        return name

    @property
    def submitter(self) -> Process:
        """The process that submitted it."""
        return Process(**self.intent["holder"])

    @property
    def submitted_at(self) -> datetime:
        """When it was about to be submitted."""
        return datetime.fromisoformat(self.intent["time"])

    @property
    def after(self) -> list[str]:
        """Ids of the jobs that have to end well before it starts."""
        ids: list[str] = self.intent["after"]
        return ids

    def record_job(self, job_id: str, process: Process | None = None) -> bool:
        """Record the id, unless one is recorded; say whether it is this one."""
        holder = process.to_json() if process else None
        noted = {"job_id": job_id, "time": now(), "holder": holder}
        path = self.folder / "job.json"
        publish_sealed(path, noted, self._place(path))
        return self.job_id == job_id

    @property
    def job_id(self) -> str | None:
        """The id of the job or array; None where it is not recorded."""
        noted = self._read(self.folder / "job.json")
        return None if noted is None else noted["job_id"]

    @property
    def process(self) -> Process | None:
        """The process that was started for it on a machine; None where that is not recorded."""
        noted = self._read(self.folder / "job.json")
        holder = noted and noted["holder"]
        return Process(**holder) if holder else None

    def job_id_of(self, index: int) -> str | None:
        """The id of one of its jobs."""
        job_id = self.job_id
        return f"{job_id}_{index}" if job_id and self.tasks > 1 else job_id

    def life(self, index: int) -> Path:
        """The folder that the process of one of its jobs has under a lease while it lives."""
        return self.folder / str(index)

    def cancel(self, index: int) -> None:
        """Note that one of its jobs is not to go on."""
        noted = {"by": getpass.getuser(), "time": now()}
        publish(self.folder / f"{index}.cancelled.json", encode(noted))

    def is_cancelled(self, index: int) -> bool:
        """Whether the user wants one of its jobs to end."""
        return os.path.lexists(self.folder / f"{index}.cancelled.json")

    def record_start(self, index: int, restart: int, report: Json) -> None:
        """Write what a job reports at its start."""
        self._record("start", index, restart, report)

    def record_end(self, index: int, restart: int, report: Json) -> None:
        """Write what a job reports at its end."""
        self._record("end", index, restart, report)

    def starts(self, index: int) -> list[dict[str, Any]]:
        """What one of its jobs reported at its starts, restart by restart."""
        return self._reports("start", index)

    def ends(self, index: int) -> list[dict[str, Any]]:
        """What one of its jobs reported at its ends, restart by restart."""
        return self._reports("end", index)

    def _record(self, event: str, index: int, restart: int, report: Json) -> None:
        path = self.folder / f"{index}.{event}.{restart:03d}.json"
        replace(path, sealed(report, self._place(path)))

    def _reports(self, event: str, index: int) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob(f"{index}.{event}.[0-9]*.json"))
        reports = [(int(path.name.split(".")[2]), self._read(path)) for path in paths]
        return [{"restart": restart, **report} for restart, report in reports if report]


@dataclass(frozen=True)
class Attempt:
    """A stage's place in a submission."""

    submission: Submission
    index: int

    @property
    def has_ended(self) -> bool:
        """Whether its job reported that it came to its end, reports and all."""
        return any(end["outcome"] == "done" for end in self.submission.ends(self.index))

    def check(self) -> None:
        """Raise ``DamagedError`` where something that was noted of it is damaged."""
        self.submission.check(self.index)


@contextmanager
def only_submitter(store: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Wait until nobody else submits to a store, and keep others from it; who does is noted."""
    waited_for: set[str] = set()

    def note_once(holder: str) -> None:
        if not waited_for:
            note(f"waiting: {holder} is submitting")
        waited_for.add(holder)

    with awaited_lease(store / "submissions", note_once):
        yield


def want(stage_folder: Path, run: Path) -> None:
    """Note that a run needs a stage, given by its folder in the store."""
    entry = {"run": str(run.absolute())}
    path = stage_folder / "runs" / f"{key_of(entry)}.json"
    if not publish(path, encode(entry)):
        _wanting(path)


def runs_that_want(stage_folder: Path) -> set[Path]:
    """Folders of the runs that needed a stage when they were launched. Raises ``DamagedError``."""
    return {_wanting(path) for path in (stage_folder / "runs").glob("[!.]*.json")}


def _wanting(path: Path) -> Path:
    entry = read_object(path) or {}
    if understood(path, lambda: key_of(entry)) != path.stem:
        raise DamagedError(path, "its content is not what was written there")
    return Path(entry["run"])


def attempts(stage_folder: Path) -> list[Attempt]:
    """Every attempt at a stage, given by its folder in the store; oldest first.

    One whose submission was set aside is left out. Raises ``DamagedError``.
    """
    submissions = stage_folder.parents[2] / "submissions"
    found = []
    for path in sorted((stage_folder / "attempts").glob("[0-9]*.json")):
        entry = read_sealed(path, _place_of_attempt(path))
        if entry is None:
            continue
        attempt = understood(path, partial(_attempt, submissions, entry))
        if os.path.lexists(attempt.submission.folder / "submission.json"):
            found.append(attempt)
    return found


def _attempt(submissions: Path, entry: Mapping[str, Any]) -> Attempt:
    return Attempt(Submission(submissions / entry["token"]), int(entry["index"]))


def _place_of_attempt(path: Path) -> str:
    return "/".join(path.parts[-4:])


def record_attempt(stage_folder: Path, submission: Submission, index: int) -> None:
    """Add an attempt. Raises ``ClusterError`` where another process added one meanwhile."""
    earlier = (stage_folder / "attempts").glob("[0-9]*.json*")  # those set aside included
    numbers = [int(number) for path in earlier if (number := path.name.split(".")[0]).isdecimal()]
    path = stage_folder / "attempts" / f"{max(numbers, default=-1) + 1:04d}.json"
    entry = {"token": submission.token, "index": index}
    if not publish_sealed(path, entry, _place_of_attempt(path)):
        raise ClusterError(f"{path} was written by another launch; type the same again")
