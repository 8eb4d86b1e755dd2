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
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError
from pipeline.files import Json, encode, key_of, publish, read_json, replace
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
        publish(submission.folder / "submission.json", encode(written))
        return submission

    @cached_property
    def intent(self) -> dict[str, Any]:
        """What was to be submitted."""
        data: dict[str, Any] = read_json(self.folder / "submission.json")
        return data

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
        publish(self.folder / "job.json", encode(noted))
        return self.job_id == job_id

    @property
    def job_id(self) -> str | None:
        """The id of the job or array; None where it is not recorded."""
        try:
            identifier: str = read_json(self.folder / "job.json")["job_id"]
        except FileNotFoundError:
            return None
        return identifier

    @property
    def process(self) -> Process | None:
        """The process that was started for it on a machine; None where that is not recorded."""
        try:
            noted = read_json(self.folder / "job.json")["holder"]
        except FileNotFoundError:
            return None
        return Process(**noted) if noted else None

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
        return (self.folder / f"{index}.cancelled.json").exists()

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
        replace(self.folder / f"{index}.{event}.{restart:03d}.json", encode(report))

    def _reports(self, event: str, index: int) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob(f"{index}.{event}.*.json"))
        return [{"restart": int(path.name.split(".")[2]), **read_json(path)} for path in paths]


@dataclass(frozen=True)
class Attempt:
    """A stage's place in a submission."""

    submission: Submission
    index: int

    @property
    def has_ended(self) -> bool:
        """Whether its job reported that it came to its end, reports and all."""
        return any(end["outcome"] == "done" for end in self.submission.ends(self.index))


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
    publish(stage_folder / "runs" / f"{key_of(entry)}.json", encode(entry))


def runs_that_want(stage_folder: Path) -> set[Path]:
    """Folders of the runs that needed a stage when they were launched."""
    return {Path(read_json(path)["run"]) for path in (stage_folder / "runs").glob("[!.]*.json")}


def attempts(stage_folder: Path) -> list[Attempt]:
    """Every attempt at a stage, given by its folder in the store; oldest first."""
    submissions = stage_folder.parents[2] / "submissions"
    entries = map(read_json, sorted((stage_folder / "attempts").glob("[0-9]*.json")))
    return [Attempt(Submission(submissions / e["token"]), e["index"]) for e in entries]


def record_attempt(stage_folder: Path, submission: Submission, index: int) -> None:
    """Add an attempt. Raises ``ClusterError`` where another process added one meanwhile."""
    number = len(attempts(stage_folder))
    path = stage_folder / "attempts" / f"{number:04d}.json"
    if not publish(path, encode({"token": submission.token, "index": index})):
        raise ClusterError(f"{path} was written by another launch; type the same again")
