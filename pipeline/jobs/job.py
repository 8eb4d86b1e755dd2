"""What a job runs: ``python -m pipeline.jobs.job SUBMISSION_FOLDER``.

Everything is read from disk at every start: nothing is carried over from the process that
submitted, nor from an earlier start of the job.
"""

import importlib
import os
import platform
import signal
import stat
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import program
from pipeline.distributed.rendezvous import ranks_of_torchrun
from pipeline.distributed.start import over_ranks
from pipeline.errors import LeaseLostError, PipelineError, StageError
from pipeline.executors import AnyExecutor, announce_job, executor_named, find_executor, register
from pipeline.executors.base import Executor
from pipeline.executors.submission import Submission, Task, now, runs_that_want
from pipeline.files import mended
from pipeline.runs.interruption import STOP_SIGNALS, Interrupted, Interruption
from pipeline.store.leases import lease
from pipeline.store.processes import NO_JOB
from pipeline.store.summary import Work

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader
    from pipeline.plan.run import Run

CANCELLED = "cancelled by multipruner cancel"
LOOK_EVERY_S = 1.0
"""Seconds between two looks at what others want of the job."""


class ThisJob:
    """The job that this process is."""

    def __init__(
        self, submission: Submission, executor: AnyExecutor, leader: "Leader | None"
    ) -> None:
        self.submission, self.executor, self.leader = submission, executor, leader
        self.job = executor.current_job(os.environ) or NO_JOB
        self.index, self.restart = self.job.index, self.job.restart
        self.work = Work()
        self.next_look = 0.0
        self.interruption = Interruption.watch(submission.intent["patience_s"], self._leave_at_once)

    def run(self) -> int:
        """Run the stages, and hold the job's lease meanwhile; the exit status."""
        with lease(self.submission.life(self.index)) as guard:
            if guard is None:
                print("error: another process is this job already; it ends", file=sys.stderr)
                return 1
            return self._run()

    def _run(self) -> int:
        try:
            self._start()
            self._compute(self.submission.task(self.index))
        except Interrupted as stop:
            return self._leave(str(stop))
        except LeaseLostError as error:
            print(f"{error}", file=sys.stderr)
            return self._end("stopped", str(error))
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)
            return self._end("failed", str(error))
        except BaseException as error:
            traceback.print_exc()
            return self._end("failed", f"{type(error).__name__}: {error}")
        return self._end("done", None)

    def _start(self) -> None:
        submission, most = self.submission, self.submission.intent["max_requeues"]
        job_id = self.job.submission_id
        if job_id and not submission.record_job(job_id):
            raise StageError(f"job {submission.job_id} does this already; job {job_id} ends")
        from pipeline.store.provenance import machine

        report = {"time": now(), "node": self.job.node or platform.node(), **machine()}
        submission.record_start(self.index, self.restart, report)
        if submission.is_cancelled(self.index):
            raise StageError(CANCELLED)
        if self.restart > most:
            raise StageError(
                f"the job was requeued {self.restart} times and cluster.max_requeues is {most}; "
                "its steps are kept: multipruner retry goes on from there"
            )

    def _compute(self, task: Task) -> None:
        from pipeline.plan.run import Run, launched_from
        from pipeline.runs.display import JobLog
        from pipeline.runs.session import conclude, needs_conclusion, run_part

        log = JobLog(self._check)
        with launched_from(Path(task.run)):
            run = Run.open(Path(task.run))
            # without an order among jobs, what other runs are computing is waited for, or taken
            # over, by the stages' leases
            in_order = self.executor.keeps_order
            check_unchanged(run, task, needs_all=in_order)
            only = set(task.stages) if in_order else set(run.plan.by_name)
            run_part(run, only, log, self._keep, self.leader)
        for path in mended(lambda: _others_that_want(run, task), log.warning):
            with launched_from(path):
                other = Run.open(path)
                if needs_conclusion(other):
                    print(f"concluding {path}, which waited for this, too", flush=True)
                    conclude(other, log)

    def _keep(self, work: Work) -> None:
        self.work = work

    def _check(self) -> None:
        """Raise what ends the stage between two steps."""
        # first: a job whose rank has died is asked to stop, and that is no reason to requeue it
        if self.leader:
            self.leader.check()
        self.interruption.check()
        if time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + LOOK_EVERY_S
            if self.submission.is_cancelled(self.index):  # from where no signal reaches
                raise Interrupted(CANCELLED)

    def _leave_at_once(self) -> None:
        """The stage does not come to a step's end in time: what is on disk is enough."""
        self._end("stopped", "stopped within a step: it took longer than the warning gave")
        self._requeue()

    def _leave(self, why: str) -> int:
        if self.submission.is_cancelled(self.index):
            return self._end("stopped", CANCELLED)
        if not self.job.id:
            return self._end("failed", "stopped at the time limit or by a signal; launch again")
        most = self.submission.intent["max_requeues"]
        if self.restart >= most and not self.executor.is_ending(self.job):
            return self._end(
                "failed",
                f"{why}, and not requeued: that happened {self.restart} times already and "
                "cluster.max_requeues is no higher; multipruner retry goes on from there",
            )
        self._end("stopped", why)
        print(f"{why}; everything is on disk, the job is requeued", flush=True)
        self._requeue()
        return 1

    def _requeue(self) -> None:
        """Have the job requeued, unless that is under way already."""
        if not self.job.id or self.executor.is_ending(self.job):
            return
        if not self.executor.requeue(self.job):
            print("the job could not be requeued; multipruner retry goes on", file=sys.stderr)

    def _end(self, outcome: str, error: str | None) -> int:
        work = self.work.model_dump(mode="json")
        report = {"outcome": outcome, "error": error, "time": now(), **work}
        self.submission.record_end(self.index, self.restart, report)
        return int(outcome != "done")


def _others_that_want(run: "Run", task: Task) -> list[Path]:
    """Folders of other runs with the same stages, for which no job of their own may come."""
    stages = [run.plan.by_name[name] for name in task.stages]
    paths = {path for stage in stages for path in runs_that_want(run.store.folder(stage))}
    return sorted(path for path in paths - {Path(task.run)} if (path / "launch.json").exists())


def check_unchanged(run: "Run", task: Task, needs_all: bool = True) -> None:
    """Raise ``StageError`` where a stage is no longer what was submitted, or lacks its needs.

    ``DamagedError`` where a need was finished and is damaged.
    """
    for name, key in task.stages.items():
        stage = run.plan.by_name.get(name)
        if stage is None or stage.key != key:
            raise StageError(
                f"{name} is not what was submitted: the model, calibration or evaluation files "
                "have changed since. Launch the run again"
            )
        for needed in stage.needs:
            is_here = needed.name in task.stages or run.store.result(needed) is not None
            if needs_all and not is_here:
                raise StageError(f"{name} needs {needed.name}, which is not finished")


def main() -> int:
    """Run this job, or this process's part of it."""
    program.begin()
    # before any thread is started, those of the ranks' exchange among them
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        submission = Submission(Path(sys.argv[1]))
        executor = executor_of(submission)
        announce_job(os.environ)
        ranks = ranks_of_torchrun(os.environ) or executor.ranks(os.environ)
        return over_ranks(partial(run_submission, submission, executor), ranks)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def executor_of(submission: Submission) -> AnyExecutor:
    """The executor that a submission was handed over to, which may have registered from elsewhere.

    Raises ``StageError`` where others than this user may have written what it says.
    """
    entry = submission.folder.stat()
    if entry.st_uid != os.getuid() or entry.st_mode & stat.S_IWOTH:
        raise StageError(f"{submission.folder} is not this user's alone")
    if find_executor(submission.executor) is None:
        module = importlib.import_module(submission.intent["executor_module"])
        if isinstance(executor := getattr(module, "EXECUTOR", None), Executor):
            register(executor)
    return executor_named(submission.executor)


def run_submission(
    submission: Submission, executor: AnyExecutor, leader: "Leader | None" = None
) -> int:
    """Run this process's job of a submission; the exit status."""
    if submission.intent["offline"]:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="offline")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return ThisJob(submission, executor, leader).run()


if __name__ == "__main__":
    sys.exit(main())
