"""How stages stand: read from SLURM where it answers, and from the disk where it does not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pipeline.executors.slurm import client as slurm
from pipeline.executors.slurm.client import Job
from pipeline.executors.submission import Attempt, attempts
from pipeline.files import read_json
from pipeline.store.leases import Holder, beats

State = Literal[
    "new", "pending", "running", "requeued", "done", "failed", "cancelled", "unknown"
]  # fmt: skip
LIVE: tuple[State, ...] = ("pending", "running", "requeued")
SUBMITTING_S = 120.0
"""How long a submission may be on its way to SLURM."""


@dataclass(frozen=True)
class StageStatus:
    """How a stage stands. None is what is not known."""

    stage: str
    key: str
    state: State
    reason: str | None = None
    """Why it waits, failed or was cancelled."""
    job_id: str | None = None
    job_state: str | None = None
    """SLURM's own word."""
    node: str | None = None
    restarts: int | None = None
    started: str | None = None
    ended: str | None = None
    log: str | None = None
    attempts: int = 0
    attempt: Attempt | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        shown = {**self.__dict__}
        del shown["attempt"]
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

    @property
    def is_finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "done.json").exists()


def places(run: Path) -> list[StagePlace]:
    """The stages of a run's folder, in an order in which they can run."""
    launch, keys = read_json(run / "launch.json"), read_json(run / "stages.json")
    return [
        StagePlace(
            name, key, Path(launch["store"]), tuple(keys[need] for need in launch["needs"][name])
        )
        for name, key in keys.items()
    ]


def of_run(run: Path) -> list[StageStatus]:
    """How the stages of a run stand."""
    return of_runs([run])[0]


def of_runs(runs: Iterable[Path]) -> list[list[StageStatus]]:
    """How the stages of runs stand. SLURM is asked once."""
    found = [places(run) for run in runs]
    states = of_places(place for each in found for place in each)
    return [[states[place.key] for place in each] for each in found]


def of_places(found: Iterable[StagePlace]) -> dict[str, StageStatus]:
    """How stages stand, by key. Each comes after those that it needs."""
    entries = {place.key: (place, attempts(place.folder)) for place in found}
    last = {key: tries[-1] for key, (_, tries) in entries.items() if tries}
    open_ones = [
        attempt
        for key, attempt in last.items()
        if not (entries[key][0].is_finished and attempt.has_ended)
    ]
    answer = _Answer.about([a for a in open_ones if a.submission.intent["cluster"] == "slurm"])
    states: dict[str, StageStatus] = {}
    for key, (place, tries) in entries.items():
        states[key] = _status(place, tries, answer, states)
    return states


@dataclass(frozen=True, slots=True)
class _Answer:
    """What SLURM said of several submissions."""

    queue: Mapping[str, list[Job]] | None
    accounting: Mapping[str, list[Job]] | None

    @classmethod
    def about(cls, tries: list[Attempt]) -> "_Answer":
        names = [a.submission.name for a in tries]
        since = min((a.submission.intent["time"] for a in tries), default=None)
        if since is None:
            return cls({}, {})
        # clocks differ, and sacct takes local time without a zone
        start = datetime.fromisoformat(since).astimezone() - timedelta(hours=1)
        return cls(slurm.queue(names), slurm.accounted(names, start.strftime("%Y-%m-%dT%H:%M:%S")))

    def job_of(self, attempt: Attempt) -> Job | None:
        """The attempt's job, in the queue or ended."""
        submission = attempt.submission
        waiting = _matching((self.queue or {}).get(submission.name, []), attempt)
        ended = _matching((self.accounting or {}).get(submission.name, []), attempt)
        if self.queue is not None and not waiting:
            # what the queue does not have is not alive, whatever the database still believes
            ended = [job for job in ended if not job.may_go_on]
        if ended and not any(job.may_go_on for job in waiting):
            return ended[0]  # the database knows the exit status, too
        return next(iter(waiting), None)


def _matching(jobs: list[Job], attempt: Attempt) -> list[Job]:
    """Those with the attempt's place in its array. The name was asked for: it has the token."""
    if attempt.submission.tasks == 1:
        return jobs
    return [job for job in jobs if job.id.endswith(f"_{attempt.index}")]


def _status(
    place: StagePlace, tries: list[Attempt], answer: _Answer, others: Mapping[str, StageStatus]
) -> StageStatus:
    if not tries:
        return StageStatus(place.name, place.key, "done" if place.is_finished else "new")
    attempt = tries[-1]
    submission = attempt.submission
    starts = submission.told("start", attempt.index)
    ends = submission.told("end", attempt.index)
    is_local = submission.intent["cluster"] == "local"
    job = None if is_local else answer.job_of(attempt)
    if job and submission.job_id is None:
        submission.record_job(job.id.partition("_")[0])
    blocker = _blocker(place, others)
    state: State
    if is_local:
        state, reason = _local_state(attempt, starts, ends)
    else:
        state, reason = _state(place, attempt, job, answer, starts, ends, blocker)
    concludes = state == "running" and [*submission.task(attempt.index).stages][-1] == place.name
    if place.is_finished and (attempt.has_ended or not concludes):
        state, reason = "done", None
    log = submission.log(attempt.index)
    last_start: dict[str, Any] = starts[-1] if starts else {}
    last_end: dict[str, Any] = ends[-1] if ends else {}
    return StageStatus(
        stage=place.name,
        key=place.key,
        state=state,
        reason=reason,
        job_id=submission.job_id_of(attempt.index),
        job_state=job.state if job else None,
        node=_node(last_start) or (job.node if job else None),
        restarts=last_start.get("restart"),
        started=last_start.get("time"),
        ended=last_end.get("time") if state not in LIVE else None,
        log=str(log) if log else None,
        attempts=len(tries),
        attempt=attempt,
    )


def _state(
    place: StagePlace,
    attempt: Attempt,
    job: Job | None,
    answer: _Answer,
    starts: list[dict[str, Any]],
    ends: list[dict[str, Any]],
    blocker: str | None,
) -> tuple[State, str | None]:
    failure = _failure(starts, ends)
    if job is None:
        return _state_without_slurm(place, attempt, answer, starts, failure, blocker)
    if job.is_waiting and job.reason != "DependencyNeverSatisfied":
        return "requeued" if starts else "pending", job.reason
    if job.is_running:
        return "running", None
    if attempt.submission.is_cancelled(attempt.index):
        return "cancelled", "by multipruner cancel"
    if job.is_waiting or job.state == "CANCELLED":
        return "cancelled", blocker or "cancelled in SLURM"
    return "failed", failure or _verdict(job)


def _state_without_slurm(  # noqa: PLR0911 - one line for each thing that the disk may say
    place: StagePlace,
    attempt: Attempt,
    answer: _Answer,
    starts: list[dict[str, Any]],
    failure: str | None,
    blocker: str | None,
) -> tuple[State, str | None]:
    """What the disk says of a job that SLURM does not tell of."""
    submission = attempt.submission
    if submission.is_cancelled(attempt.index):
        return "cancelled", "by multipruner cancel"
    if failure:
        return "failed", failure
    if answer.queue is None:
        if beats(place.folder):
            return "running", "SLURM does not answer; the stage's own heartbeat says so"
        return "unknown", "SLURM does not answer"
    if blocker:
        return "cancelled", blocker
    if submission.job_id is None and _is_being_submitted(attempt):
        return "pending", "being submitted"
    return "failed", _how_lost(attempt, bool(starts))


def _is_being_submitted(attempt: Attempt) -> bool:
    intent = attempt.submission.intent
    age = datetime.now(UTC) - datetime.fromisoformat(intent["time"])
    return age.total_seconds() < SUBMITTING_S and not _is_gone(intent["holder"])


def _how_lost(attempt: Attempt, has_started: bool) -> str:
    if has_started:
        return "the job ended without a word (killed?), and SLURM knows it no more"
    job_id = attempt.submission.job_id_of(attempt.index)
    if job_id is None:
        return "the submission was cut off before SLURM had it"
    return f"SLURM has no job {job_id} of this run"


def _local_state(
    attempt: Attempt, starts: list[dict[str, Any]], ends: list[dict[str, Any]]
) -> tuple[State, str | None]:
    submission = attempt.submission
    if submission.job_id is None:
        gone = _is_gone(submission.intent["holder"])
        return ("failed", "it was never started") if gone else ("pending", "being started")
    if not _is_gone(read_json(submission.folder / "job.json")["holder"]):
        return ("running" if starts else "pending"), None
    if submission.is_cancelled(attempt.index):
        return "cancelled", "by multipruner cancel"
    return "failed", _failure(starts, ends) or "the process ended without a word (killed?)"


def _node(start: Mapping[str, Any]) -> str | None:
    """Where a job started, as SLURM calls it."""
    node: str | None = start.get("slurm", {}).get("SLURMD_NODENAME") or start.get("host")
    return node


def _failure(starts: list[dict[str, Any]], ends: list[dict[str, Any]]) -> str | None:
    """The error that the last start told of, if it came to tell of one."""
    if not starts or not ends or ends[-1]["restart"] != starts[-1]["restart"]:
        return None
    error: str | None = ends[-1]["error"]
    return error


def _is_gone(holder: dict[str, Any]) -> bool:
    return Holder(**holder).is_dead is True


def _blocker(place: StagePlace, others: Mapping[str, StageStatus]) -> str | None:
    """The needed stage because of which this one does not run."""
    for status in (others[key] for key in place.needs if key in others):
        if status.state in ("failed", "cancelled"):
            return f"{status.stage}, which it needs, {_ended(status.state)}"
    return None


def _ended(state: State) -> str:
    return "failed" if state == "failed" else "was cancelled"


def _verdict(job: Job) -> str:
    """Why a job ended, where the stage itself had no time to say."""
    match job.state:
        case "TIMEOUT":
            return "the time limit came before a step was finished; raise cluster.timeout_min"
        case "OUT_OF_MEMORY":
            return "SLURM ended it for lack of memory; raise cluster.mem_gb"
        case "NODE_FAIL":
            return f"node {job.node} failed"
        case "COMPLETED":
            return "the job ended and left no result"
    status, _, killed_by = (job.exit_code or "").partition(":")
    how = f" with status {status}" if status else ""
    if killed_by not in ("", "0"):
        how = f" by signal {killed_by}"
    return f"the job ended{how} and left no word; see multipruner logs"


def run_state(states: Iterable[StageStatus]) -> State:
    """How a run stands, from its stages."""
    all_states = {status.state for status in states}
    for state in ("failed", "running", "requeued", "pending", "unknown", "cancelled", "new"):
        if state in all_states:
            return state
    return "done"
