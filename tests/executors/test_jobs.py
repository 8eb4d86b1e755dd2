"""Jobs that are cancelled, die or fall silent: judged by what they are, not by a process id."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support_executors import told_by_cancel
from support_jobs import Job, after_steps, place, prepared

from pipeline.executors import executor_named
from pipeline.executors.base import JobStatus
from pipeline.executors.submission import Attempt, Submission, Task
from pipeline.files import encode, publish
from pipeline.jobs import job as jobs
from pipeline.jobs.cancelling import cancel
from pipeline.jobs.status import StageStatus, of_run, run_state
from pipeline.jobs.submit import survey
from pipeline.store.leases import DEAD_AFTER_S, lease
from pipeline.store.processes import Process

__all__ = ["place"]
LOCAL = executor_named("local")
SILENT_S = DEAD_AFTER_S + 5

STRANGERS: dict[str, Callable[[Process], Process]] = {
    "on another host": lambda process: replace(process, host="elsewhere"),
    "before a reboot": lambda process: replace(process, boot_id="another"),
    "in another container": lambda process: replace(process, pid_namespace="pid:[1]"),
    "that ended": lambda process: replace(process, started="1"),
}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody here may end, unless it is the job."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return Submission.intend(tmp_path, {"cluster": "local"}, [Task("run", {"prune": "key"})])


def lives_as(submission: Submission, process: Process, silent_s: float = 0.0) -> None:
    """The job's own process, which last beat ``silent_s`` seconds ago."""
    path = submission.life(0) / "leases" / "000000.json"
    publish(path, encode(process.to_json()))
    age(path, silent_s)


def age(path: Path, silent_s: float) -> None:
    beat = time.time() - silent_s
    os.utime(path, (beat, beat))


def status(submission: Submission) -> JobStatus:
    attempt = Attempt(submission, 0)
    return LOCAL.statuses([attempt])[attempt]


def in_time(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=30)


# Whom a cancellation reaches


@pytest.mark.parametrize("where", STRANGERS)
def test_a_process_that_only_has_the_id_of_the_job_is_left_alone(
    submission: Submission, process: subprocess.Popen[bytes], where: str
) -> None:
    stranger = STRANGERS[where](Process.of(process.pid))
    submission.record_job(str(process.pid), stranger)
    assert not LOCAL.cancel(submission, 0)
    lives_as(submission, stranger)
    assert not LOCAL.cancel(submission, 0)
    time.sleep(0.05)
    assert process.poll() is None


def test_a_job_whose_starter_was_killed_runs_and_is_cancelled(
    submission: Submission, process: subprocess.Popen[bytes]
) -> None:
    submission.record_job("1", replace(Process.here(), started="1"))
    lives_as(submission, Process.of(process.pid), SILENT_S)
    assert status(submission).state == "running"
    assert LOCAL.cancel(submission, 0)
    assert in_time(process) != 0
    assert status(submission) == JobStatus("ended", "the process ended without a word (killed?)")


def test_a_job_that_is_being_started_is_cancelled_through_its_starter(
    submission: Submission, process: subprocess.Popen[bytes]
) -> None:
    submission.record_job(str(process.pid), Process.of(process.pid))
    assert status(submission).state == "waiting"
    assert LOCAL.cancel(submission, 0)
    assert in_time(process) != 0


def test_a_job_that_no_signal_reaches_ends_between_two_steps(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(LOCAL, "cancel", lambda *_: False)
    job = Job.of(prepared())
    told: list[str] = []
    after_steps(monkeypatch, 2, lambda: told.extend(told_by_cancel(job.run.folder.path)))
    assert job.do() == 1
    assert "no signal from here; it ends at its start or its next step" in told[0]
    assert job.end == ("stopped", "cancelled by multipruner cancel")
    assert job.run.folder.steps_written() == 2


def test_a_launch_that_is_on_its_way_is_waited_for_and_cancelled(place: Path) -> None:
    run = prepared()
    run.claim()
    told: list[str] = []
    launch = lease(run.store.root / "submissions")
    launch.__enter__()

    def submit(text: str) -> None:
        if not told:
            Job.of(run)  # takes an earlier wish away
            launch.__exit__(None, None, None)
        told.append(text)

    cancel(run.folder.path, submit)
    assert told[0].startswith("waiting: process ")
    assert len(told) == 1 + len(run.plan.stages)
    assert {status.state for status in of_run(run.folder.path)} == {"cancelled"}
    assert "None" not in " ".join(told)


# Who still runs


@pytest.mark.parametrize("where", ["on another host", "before a reboot", "in another container"])
def test_a_job_elsewhere_is_judged_by_its_heartbeat(
    submission: Submission, process: subprocess.Popen[bytes], where: str
) -> None:
    stranger = STRANGERS[where](Process.of(process.pid))
    submission.record_job(str(process.pid), stranger)
    assert status(submission).state == "waiting"
    lives_as(submission, stranger, DEAD_AFTER_S / 2)
    assert status(submission).state == "running"
    age(submission.life(0) / "leases" / "000000.json", SILENT_S)
    ended = status(submission)
    assert ended.state == "ended"
    assert f"nothing is heard any more of process {process.pid} on" in (ended.reason or "")


def test_a_process_elsewhere_that_never_came_up_counts_as_dead(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission.record_job("1", replace(Process.here(), boot_id="another"))
    assert status(submission).state == "waiting"
    monkeypatch.setattr("pipeline.executors.local.STARTED_WITHIN_S", -1.0)
    assert status(submission).state == "ended"


def test_a_run_whose_machine_was_rebooted_goes_on(place: Path) -> None:
    def prune_of(run_path: Path) -> StageStatus:
        return next(each for each in of_run(run_path) if each.stage == "prune")

    rebooted = Job.of(prepared())
    path = rebooted.run.folder.path
    before = replace(Process.here(), boot_id="another")
    rebooted.submission.record_job("1", before)
    lives_as(rebooted.submission, before)
    publish(rebooted.run.store.folder(rebooted.run.plan.by_name["calibrate"])
            / "leases" / "000000.json", encode(before.to_json()))  # fmt: skip
    assert prune_of(path).state == "running"
    assert not any(work.needs_job for work in survey([prepared()]))
    for beat in place.glob("outputs/store/**/leases/*.json"):
        age(beat, SILENT_S)
    assert prune_of(path).state == "failed"
    assert all(work.needs_job for work in survey([prepared()]))
    again = Job.of(prepared())
    assert (again.do(), again.end) == (0, ("done", None))
    assert run_state(of_run(path)) == "done"


def test_a_job_is_one_process(place: Path) -> None:
    job = Job.of(prepared())
    with lease(job.submission.life(0)):
        assert job.do() == 1
    assert job.submission.starts(0) == job.submission.ends(0) == []
    assert not (place / "outputs/runs/model").exists()
