"""How stages stand: as their executors say, and as the disk says where they do not answer."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import DamagedError
from pipeline.executors import find_executor
from pipeline.executors.base import JobStatus
from pipeline.executors.submission import Attempt, attempts
from pipeline.jobs.here import standing_of
from pipeline.store.folders import launch_of
from pipeline.store.leases import beats
from pipeline.store.results import result_in

State = Literal[
    "new", "pending", "running", "requeued", "done", "failed", "interrupted", "cancelled", "unknown"
]  # fmt: skip
LIVE: tuple[State, ...] = ("pending", "running", "requeued")
BY_WEIGHT: tuple[State, ...] = (
    "failed", "running", "requeued", "pending", "unknown", "interrupted", "cancelled", "new"
)  # fmt: skip
"""The first of these that a stage has is its run's."""
SUBMITTING_S = 120.0
"""How long a submission may be on its way."""


@dataclass(frozen=True)
class StageStatus:
    """How a stage stands. None is what is not known.

    Without a job it is pending or running in a process that runs the stages itself, failed there,
    or interrupted with it.
    """

    stage: str
    key: str
    state: State
    reason: str | None = None
    """Why it waits, failed or was cancelled; the process that runs it, where that is no job."""
    job_id: str | None = None
    job_state: str | None = None
    """The scheduler's own word."""
    node: str | None = None
    restarts: int | None = None
    started: str | None = None
    ended: str | None = None
    log: str | None = None
    attempts: int = 0
    attempt: Attempt | None = field(default=None, compare=False, repr=False)
    damage: DamagedError | None = field(default=None, compare=False, repr=False)
    """What has to be set aside before it can be done."""

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        shown = {**self.__dict__}
        del shown["attempt"], shown["damage"]
        return shown


@dataclass(frozen=True, slots=True)
class StagePlace:
    """A stage by name, key, and the stages it needs, as a run's folder has them."""

    name: str
    key: str
    store: Path
    needs: tuple[str, ...]
    """Keys of the stages that it needs."""

    @property
    def folder(self) -> Path:
        """Its folder in the store."""
        return self.store / "stages" / self.name / self.key


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """What the disk says of a stage."""

    place: StagePlace
    is_finished: bool
    """Whether its result is there."""
    tries: list[Attempt]
    damage: DamagedError | None
    """What keeps it from being known, or finished."""

    @classmethod
    def of(cls, place: StagePlace) -> "_OnDisk":
        is_finished, tries, damage = False, list[Attempt](), None
        try:
            tries = attempts(place.folder)
            for attempt in tries[-1:]:
                attempt.check()
        except DamagedError as error:
            tries, damage = [], error
        try:
            is_finished = result_in(place.folder) is not None
        except DamagedError as error:
            damage = error
        return cls(place, is_finished, tries, damage)


def places(run: Path) -> list[StagePlace]:
    """The stages of a run's folder, in an order in which they can run."""
    launch = launch_of(run)
    keys = launch.keys
    return [
        StagePlace(name, key, launch.store, tuple(keys[need] for need in launch.needs[name]))
        for name, key in keys.items()
    ]


def of_run(run: Path) -> list[StageStatus]:
    """How the stages of a run stand."""
    return of_runs([run])[0]


def of_runs(runs: Iterable[Path]) -> list[list[StageStatus]]:
    """How the stages of runs stand, in jobs or without. Each executor is asked once."""
    folders = list(runs)
    of_each = [places(run) for run in folders]
    states = of_places(place for of_one in of_each for place in of_one)

    return [
        [_without_job(run, place, states[place.key]) for place in of_one]
        for run, of_one in zip(folders, of_each, strict=True)
    ]


def _without_job(run: Path, place: StagePlace, status: StageStatus) -> StageStatus:
    """The status; where there is no job, as the process that runs the stage itself tells it."""
    if status.state != "new":
        return status
    standing = standing_of(run, place.name, place.key, place.folder)
    return replace(status, state=standing[0], reason=standing[1]) if standing else status


def of_places(stages: Iterable[StagePlace]) -> dict[str, StageStatus]:
    """How stages stand, by key. Each comes after those that it needs."""
    known = {place.key: _OnDisk.of(place) for place in stages}
    unsure = [
        each.tries[-1]
        for each in known.values()
        if each.tries and not (each.is_finished and each.tries[-1].has_ended)
    ]
    jobs = _ask(unsure)
    states: dict[str, StageStatus] = {}
    for key, each in known.items():
        states[key] = _status(each, jobs, states)
        if each.damage and not each.is_finished and states[key].state not in LIVE:
            reason, state = str(each.damage), states[key]
            states[key] = replace(state, state="failed", reason=reason, damage=each.damage)
    return states


def _ask(unsure: Iterable[Attempt]) -> dict[Attempt, JobStatus]:
    """What their executors say of attempts."""
    by_executor: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in dict.fromkeys(unsure):
        by_executor[attempt.submission.executor].append(attempt)
    jobs: dict[Attempt, JobStatus] = {}
    for name, of_one in by_executor.items():
        if executor := find_executor(name):
            jobs |= executor.statuses(of_one)
        else:
            unasked = JobStatus("unreachable", f"there is no executor {name} here")
            jobs |= dict.fromkeys(of_one, unasked)
    return jobs


def _status(
    known: _OnDisk, jobs: Mapping[Attempt, JobStatus], others: Mapping[str, StageStatus]
) -> StageStatus:
    place, tries = known.place, known.tries
    if not tries:
        return StageStatus(place.name, place.key, "done" if known.is_finished else "new")
    attempt = tries[-1]
    submission = attempt.submission
    starts, ends = submission.starts(attempt.index), submission.ends(attempt.index)
    job = jobs.get(attempt)
    state: State = "done"
    reason = None
    if job is not None:
        state, reason = _state(place, attempt, job, others)
        last_stage = [*submission.task(attempt.index).stages][-1]
        concludes = state == "running" and last_stage == place.name
        if known.is_finished and not concludes:
            state, reason = "done", None
    log = _log(attempt)
    last_start: dict[str, Any] = starts[-1] if starts else {}
    last_end: dict[str, Any] = ends[-1] if ends else {}
    node = last_start.get("node") or last_start.get("host")
    return StageStatus(
        stage=place.name,
        key=place.key,
        state=state,
        reason=reason,
        job_id=submission.job_id_of(attempt.index),
        job_state=job.word if job else None,
        node=node or (job.node if job else None),
        restarts=last_start.get("restart"),
        started=last_start.get("time"),
        ended=last_end.get("time") if state not in LIVE else None,
        log=str(log) if log else None,
        attempts=len(tries),
        attempt=attempt,
    )


def _log(attempt: Attempt) -> Path | None:
    executor = find_executor(attempt.submission.executor)
    return executor.log(attempt.submission, attempt.index) if executor else None


def _state(  # noqa: PLR0911 - one line for each thing that may be known
    place: StagePlace, attempt: Attempt, job: JobStatus, others: Mapping[str, StageStatus]
) -> tuple[State, str | None]:
    submission = attempt.submission
    starts, ends = submission.starts(attempt.index), submission.ends(attempt.index)
    if job.state == "waiting":
        return "requeued" if starts else "pending", job.reason
    if job.state == "running":
        return "running", None
    if submission.is_cancelled(attempt.index):
        return "cancelled", "by multipruner cancel"
    failure, blocker = _failure(starts, ends), _blocker(place, others)
    if job.state == "cancelled":
        return "cancelled", blocker or job.reason
    if job.state == "ended" or failure:
        return "failed", failure or job.reason
    if job.state == "unreachable":
        if beats(place.folder):
            return "running", f"{job.reason}; the stage's own heartbeat says so"
        return "unknown", job.reason
    if blocker:
        return "cancelled", blocker
    if _is_being_submitted(attempt):
        return "pending", "being submitted"
    return "failed", job.reason


def _is_being_submitted(attempt: Attempt) -> bool:
    submission = attempt.submission
    if submission.job_id is not None or submission.submitter.is_dead is True:
        return False
    return (datetime.now(UTC) - submission.submitted_at).total_seconds() < SUBMITTING_S


def _failure(starts: list[dict[str, Any]], ends: list[dict[str, Any]]) -> str | None:
    """The error that the last start reported, if it came to report one."""
    if not starts or not ends or ends[-1]["restart"] != starts[-1]["restart"]:
        return None
    error: str | None = ends[-1]["error"]
    return error


def _blocker(place: StagePlace, others: Mapping[str, StageStatus]) -> str | None:
    """The needed stage because of which this one does not run."""
    for status in (others[key] for key in place.needs if key in others):
        if status.state in ("failed", "cancelled"):
            return f"{status.stage}, which it needs, {_ended(status.state)}"
    return None


def _ended(state: State) -> str:
    return "failed" if state == "failed" else "was cancelled"


def run_state(states: Iterable[StageStatus]) -> State:
    """How a run stands, from its stages."""
    all_states = {status.state for status in states}
    for state in BY_WEIGHT:
        if state in all_states:
            return state
    return "done"
