"""cluster=queue: a queue in a folder that a thread works off, one job after the other.

The smallest executor that does everything: jobs wait for others, are cancelled and requeued. Every
job has a folder in the queue: ``job.json``, ``state.json``, and marks by which others tell the
worker what they want.
"""

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.executors.base import Executor, JobStatus
from pipeline.executors.submission import Attempt, Submission
from pipeline.files import encode, read_json, replace
from pipeline.settings.cluster import ClusterSection, Resources
from pipeline.store.processes import CurrentJob

POLL_S = 0.05
FOLDER, RESTART = "QUEUE_FOLDER", "QUEUE_RESTART"


class QueueSection(ClusterSection):
    """In a queue."""

    name: Literal["queue"]
    """Jobs wait in a folder until a thread does them."""
    patience: int = 1
    """How often a job goes on."""

    @property
    def most_requeues(self) -> int:
        return self.patience


class QueueExecutor(Executor[QueueSection, Resources]):
    """Jobs are folders; ``Worker`` does what is in them."""

    name = "queue"
    section = QueueSection
    place = "in a queue"

    def submit(
        self, submission: Submission, command: str, cluster: QueueSection, resources: Resources
    ) -> None:
        queue = submission.folder.parents[1] / "queue"
        queue.mkdir(exist_ok=True)
        job_id = f"{len(list(queue.iterdir())):04d}"
        log = str(submission.folder / f"{job_id}_0_log.out")
        job = {"command": command, "after": submission.after, "log": log}
        replace(queue / job_id / "state.json", encode({"state": "waiting"}))
        replace(queue / job_id / "job.json", encode(job))
        submission.record_job(job_id)

    def statuses(self, attempts: Sequence[Attempt]) -> Mapping[Attempt, JobStatus]:
        return {attempt: self._status(attempt.submission) for attempt in attempts}

    def _status(self, submission: Submission) -> JobStatus:
        job_id = submission.job_id
        if job_id is None:
            return JobStatus("lost", "it never got into the queue")
        state = read_json(submission.folder.parents[1] / "queue" / job_id / "state.json")
        status = state.get("status")
        reason = f"it ended with status {status} and left no word" if status else None
        return JobStatus(state["state"], reason, state["state"].upper())

    def cancel(self, submission: Submission, index: int) -> bool:
        (submission.folder.parents[1] / "queue" / str(submission.job_id) / "cancel").touch()
        return True

    def current_job(self, environment: Mapping[str, str]) -> CurrentJob | None:
        if FOLDER not in environment:
            return None
        folder = environment[FOLDER]
        job_id = Path(folder).name
        return CurrentJob(
            scheduler=self.name,
            id=job_id,
            submission_id=job_id,
            restart=int(environment[RESTART]),
            identity=f"queue {folder}",
            variables={"folder": folder},
        )

    def requeue(self, job: CurrentJob) -> bool:
        (Path(job.variables["folder"]) / "requeue").touch()
        return True


class Worker:
    """Does the jobs of a queue in a thread."""

    def __init__(self, queue: Path) -> None:
        self.queue = queue
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def close(self) -> None:
        """End the thread, and the job that it does."""
        self.stop.set()
        self.thread.join()

    def _work(self) -> None:
        while not self.stop.wait(POLL_S):
            for job in sorted(self.queue.glob("*/job.json")):
                self._try(job.parent)

    def _try(self, folder: Path) -> None:
        state = read_json(folder / "state.json")
        if state["state"] != "waiting" or self.stop.is_set():
            return
        job = read_json(folder / "job.json")
        needed = [read_json(self.queue / job_id / "state.json") for job_id in job["after"]]
        failed = any(n["state"] == "cancelled" or n.get("status", 0) for n in needed)
        if failed or (folder / "cancel").exists():
            _set(folder, state="cancelled")
        elif all(n["state"] == "ended" for n in needed):
            self._do(folder, job, state.get("restart", 0))

    def _do(self, folder: Path, job: dict[str, Any], restart: int) -> None:
        _set(folder, state="running", restart=restart)
        environment = os.environ | {FOLDER: str(folder), RESTART: str(restart)}
        with Path(job["log"]).open("ab") as log:
            process = subprocess.Popen(
                shlex.split(job["command"]), env=environment, stdout=log, stderr=log
            )
        while process.poll() is None:
            if self.stop.wait(POLL_S):
                process.kill()
            elif (folder / "cancel").exists():
                process.send_signal(signal.SIGTERM)
        if (folder / "requeue").exists() and not (folder / "cancel").exists():
            (folder / "requeue").unlink()
            _set(folder, state="waiting", restart=restart + 1)
        else:
            _set(folder, state="ended", restart=restart, status=process.returncode)


def _set(folder: Path, **state: Any) -> None:
    replace(folder / "state.json", json.dumps(state))


EXECUTOR = QueueExecutor()
