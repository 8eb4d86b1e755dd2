"""cluster=local: each run has a process of its own on this machine, and the prompt is back."""

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from pipeline.executors.base import (
    WARN_S,
    Executor,
    Job,
    JobStatus,
    WorkItem,
    warning_within,
)
from pipeline.executors.submission import Attempt, Submission
from pipeline.settings.cluster import ClusterSection, Resources
from pipeline.store.leases import beats, last_holder
from pipeline.store.processes import Process

NO_LIMIT_MIN = 60 * 24 * 365
KILL_AFTER_S = 60
"""Seconds before the time limit at which the process is asked to stop."""
STARTED_WITHIN_S = 120.0
"""How long a process of another machine may take to come up before it counts as dead."""


class LocalResources(Resources):
    """What a process is given."""

    gpus: int = Field(1, ge=0)
    """GPUs that the process sees: the machine's first ones."""
    timeout_min: int | None = Field(None, ge=1)
    """Time limit in minutes; null is none."""


class LocalSection(LocalResources, ClusterSection):
    """In a process of their own on this machine."""

    name: Literal["local"]
    """Stages run in a process of their own on this machine."""
    offline: bool = False
    """There is no internet: models, data and tasks come from the cache, W&B waits."""

    @property
    def is_offline(self) -> bool:
        """Whether there is no internet."""
        return self.offline

    def of_stage(self, stage: str) -> LocalResources:  # noqa: ARG002
        """The same for every stage: they are in one process."""
        return LocalResources(gpus=self.gpus, timeout_min=self.timeout_min)


class Local(Executor[LocalSection, LocalResources]):
    """Processes of this machine, started and watched over by submitit's local executor."""

    name = "local"
    section = LocalSection
    place = "for a process of this machine"
    keeps_order = False

    def groups(self, items: Sequence[WorkItem]) -> list[list[Job]]:
        """All stages of a run in one process."""
        runs: dict[str, list[WorkItem]] = defaultdict(list)
        for item in items:
            runs[item.run].append(item)
        return [[tuple(of_run)] for of_run in runs.values()]

    def warning_s(self, cluster: LocalSection, resources: LocalResources) -> float:  # noqa: ARG002
        """Seconds between the signal and the end."""
        return warning_within(WARN_S, resources.timeout_min)

    def submit(
        self,
        submission: Submission,
        command: str,
        cluster: LocalSection,  # noqa: ARG002
        resources: LocalResources,
    ) -> None:
        """Start the process."""
        import submitit

        executor = submitit.LocalExecutor(folder=submission.folder)
        executor.update_parameters(
            timeout_min=resources.timeout_min or NO_LIMIT_MIN,
            gpus_per_node=resources.gpus,
            stderr_to_stdout=True,
            signal_delay_s=KILL_AFTER_S,
        )
        with _detached():
            job: submitit.Job[Any] = executor._submit_command(command)
        submission.record_job(job.job_id, Process.of(int(job.job_id)))

    def statuses(self, attempts: Sequence[Attempt]) -> Mapping[Attempt, JobStatus]:
        """Whether the processes live."""
        return {attempt: _status(attempt) for attempt in attempts}

    def cancel(self, submission: Submission, index: int) -> bool:
        """Ask the process to stop, or whoever starts it."""
        process = last_holder(submission.life(index)) or submission.process
        return process is not None and process.send(signal.SIGTERM)


def _status(attempt: Attempt) -> JobStatus:
    """Whether the job's own process lives: submitit's, which starts it, may die before it."""
    submission, life = attempt.submission, attempt.submission.life(attempt.index)
    own = last_holder(life)
    process = own or submission.process
    if process is None:
        return JobStatus("lost", "it was never started")
    is_dead = process.is_dead
    if is_dead is None and own:
        is_dead = not beats(life)
    elif is_dead is None:
        age = datetime.now(UTC) - submission.submitted_at
        is_dead = age.total_seconds() > STARTED_WITHIN_S
    if is_dead:
        return JobStatus("ended", _silence(process))
    return JobStatus("running" if own else "waiting")


def _silence(process: Process) -> str:
    if process.is_dead is None:
        return f"nothing is heard any more of process {process.pid} on {process.host} (a reboot?)"
    return "the process ended without a word (killed?)"


@contextmanager
def _detached() -> Iterator[None]:
    """Processes started here keep no terminal and no pipe of ours open."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in range(3)]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        yield
    finally:
        for descriptor in range(3):
            os.dup2(kept[descriptor], descriptor)
            os.close(kept[descriptor])
        os.close(nothing)


EXECUTOR = Local()
