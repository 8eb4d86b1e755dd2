"""What a job runs: ``python -m pipeline.executors.job SUBMISSION_FOLDER``.

Everything is read from disk at every start: nothing is carried over from the process that
submitted, nor from an earlier start of the job.
"""

import os
import signal
import stat
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.distributed.start import over_ranks
from pipeline.errors import LeaseLostError, PipelineError, StageError
from pipeline.executors.slurm import client as slurm
from pipeline.executors.submission import Submission, Task, now, runs_that_want
from pipeline.runs.interruption import STOP_SIGNALS, Interrupted, Interruption
from pipeline.store.summary import Work

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader
    from pipeline.plan.run import Run

KILLED_WITHIN_S = 120.0


class ThisJob:
    """The job that this process is."""

    def __init__(self, submission: Submission, leader: "Leader | None") -> None:
        self.submission, self.leader = submission, leader
        self.index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.id = os.environ.get("SLURM_JOB_ID") if "SLURM_PROCID" in os.environ else None
        self.work = Work()
        self.interruption = Interruption.watch(submission.intent["patience_s"], self._leave_at_once)

    def run(self) -> int:
        """Run the stages; the exit status."""
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
        array_id = os.environ.get("SLURM_ARRAY_JOB_ID") or self.id
        if array_id and not submission.record_job(array_id):
            raise StageError(f"job {submission.job_id} does this already; job {array_id} ends")
        from pipeline.store.provenance import machine

        submission.record("start", self.index, self.restart, {"time": now(), **machine()})
        if submission.is_cancelled(self.index):
            raise StageError("cancelled by multipruner cancel")
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
            # on this machine nothing starts a process only after another: what other runs are
            # computing is waited for, or taken over, by the stages' leases
            is_local = self.submission.intent["cluster"] == "local"
            check_unchanged(run, task, needs_all=not is_local)
            only = set(run.plan.by_name) if is_local else set(task.stages)
            run_part(run, only, log, self._keep, self.leader)
        for path in _others_that_want(run, task):
            with launched_from(path):
                other = Run.open(path)
                if needs_conclusion(other):
                    print(f"concluding {path}, which waited for this, too", flush=True)
                    conclude(other, log)

    def _keep(self, work: Work) -> None:
        self.work = work

    def _check(self) -> None:
        """Raise what ends the stage between two steps."""
        # first: SLURM asks a job to stop whose rank has died, and that is no reason to requeue it
        if self.leader:
            self.leader.check()
        self.interruption.check()

    def _leave_at_once(self) -> None:
        """The stage does not come to a step's end in time: what is on disk is enough."""
        self._end("stopped", "stopped within a step: it took longer than the warning gave")
        self._requeue()

    def _leave(self, why: str) -> int:
        if self.submission.is_cancelled(self.index):
            return self._end("stopped", "cancelled by multipruner cancel")
        if self.id is None:
            return self._end("failed", "stopped at the time limit or by a signal; launch again")
        if self.restart >= self.submission.intent["max_requeues"] and self._is_asked_to_end():
            return self._end(
                "failed",
                f"{why}, and not requeued: that happened {self.restart} times already and "
                "cluster.max_requeues is no higher; multipruner retry goes on from there",
            )
        self._end("stopped", why)
        print(f"{why}; everything is on disk, the job is requeued", flush=True)
        if self._requeue():
            # SLURM ends a requeued job; one that ends by itself first would count as failed
            time.sleep(KILLED_WITHIN_S)
        return 1

    def _is_asked_to_end(self) -> bool:
        """Whether the job is still running, and not being ended by SLURM already."""
        assert self.id is not None
        return slurm.state_of(self.id) in ("RUNNING", None)

    def _requeue(self) -> bool:
        """Have SLURM requeue the job, unless it is ending it already; say whether it will."""
        if self.id is None or not self._is_asked_to_end():
            return False
        if slurm.requeue(self.id):
            return True
        print("the job could not be requeued; multipruner retry goes on", file=sys.stderr)
        return False

    def _end(self, outcome: str, error: str | None) -> int:
        told = {
            "outcome": outcome,
            "error": error,
            "time": now(),
            **self.work.model_dump(mode="json"),
        }
        self.submission.record("end", self.index, self.restart, told)
        return int(outcome != "done")


def _others_that_want(run: "Run", task: Task) -> list[Path]:
    """Folders of other runs with the same stages, for which no job of their own may come."""
    stages = [run.plan.by_name[name] for name in task.stages]
    paths = {path for stage in stages for path in runs_that_want(run.store.folder(stage))}
    return sorted(path for path in paths - {Path(task.run)} if (path / "launch.json").exists())


def check_unchanged(run: "Run", task: Task, needs_all: bool = True) -> None:
    """Raise ``StageError`` where a stage is no longer what was submitted, or lacks its needs."""
    for name, key in task.stages.items():
        stage = run.plan.by_name.get(name)
        if stage is None or stage.key != key:
            raise StageError(
                f"{name} is not what was submitted: the model, calibration or evaluation files "
                "have changed since. Launch the run again"
            )
        for needed in stage.needs:
            is_here = needed.name in task.stages or run.store.finished(needed) is not None
            if needs_all and not is_here:
                raise StageError(f"{name} needs {needed.name}, which is not finished")


def main() -> int:
    """Run this job, or this process's part of it."""
    # before any thread is started, those of the ranks' exchange among them
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return over_ranks(run_submission)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run_submission(leader: "Leader | None" = None) -> int:
    """Run what this process is told to by its folder; the exit status."""
    submission = Submission(Path(sys.argv[1]))
    entry = submission.folder.stat()
    if entry.st_uid != os.getuid() or entry.st_mode & stat.S_IWOTH:
        print(f"error: {submission.folder} is not this user's alone", file=sys.stderr)
        return 1
    if submission.intent["offline"]:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="offline")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return ThisJob(submission, leader).run()


if __name__ == "__main__":
    sys.exit(main())
