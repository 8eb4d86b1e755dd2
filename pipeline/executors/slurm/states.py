"""How jobs stand: read from squeue and sacct, as far as they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pipeline.executors.base import JobStatus
from pipeline.executors.slurm import client
from pipeline.executors.slurm.client import Job
from pipeline.executors.submission import Attempt

NEVER = "DependencyNeverSatisfied"
SILENT = "SLURM does not answer"


def statuses(attempts: Sequence[Attempt]) -> dict[Attempt, JobStatus]:
    """How the jobs of attempts stand. Ids that were never recorded are, where they are found."""
    answer = _Answer.about(attempts)
    statuses: dict[Attempt, JobStatus] = {}
    for attempt in attempts:
        job = answer.job_of(attempt)
        if job and attempt.submission.job_id is None:
            attempt.submission.record_job(job.id.partition("_")[0])
        statuses[attempt] = _status(job) if job else _without_job(attempt, answer)
    return statuses


@dataclass(frozen=True, slots=True)
class _Answer:
    """What SLURM said of several submissions."""

    queue: Mapping[str, list[Job]] | None
    accounting: Mapping[str, list[Job]] | None

    @classmethod
    def about(cls, attempts: Sequence[Attempt]) -> "_Answer":
        names = [attempt.submission.name for attempt in attempts]
        since = min((attempt.submission.submitted_at for attempt in attempts), default=None)
        if since is None:
            return cls({}, {})
        # clocks differ, and sacct takes local time without a zone
        start = since.astimezone() - timedelta(hours=1)
        accounted = client.accounted(names, start.strftime("%Y-%m-%dT%H:%M:%S"))
        return cls(client.queue(names), accounted)

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


def _status(job: Job) -> JobStatus:
    if job.is_waiting and job.reason != NEVER:
        return JobStatus("waiting", job.reason, job.state, job.node)
    if job.is_running:
        return JobStatus("running", None, job.state, job.node)
    if job.is_waiting or job.state == "CANCELLED":
        return JobStatus("cancelled", "cancelled in SLURM", job.state, job.node)
    return JobStatus("ended", _verdict(job), job.state, job.node)


def _without_job(attempt: Attempt, answer: _Answer) -> JobStatus:
    if answer.queue is None:
        return JobStatus("unreachable", SILENT)
    submission = attempt.submission
    if submission.starts(attempt.index):
        reason = "the job ended without a word (killed?), and SLURM knows it no more"
    elif submission.job_id is None:
        reason = "the submission was cut off before SLURM had it"
    else:
        reason = f"SLURM has no job {submission.job_id_of(attempt.index)} of this run"
    return JobStatus("lost", reason)


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
