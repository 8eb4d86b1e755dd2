"""Submitting the stages of runs: what is missing, once, with dependencies, in one go."""

import dataclasses
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ClusterError
from pipeline.executors import executor_named
from pipeline.executors.base import Job, WorkItem
from pipeline.executors.submission import (
    Submission,
    Task,
    attempts,
    only_submitter,
    record_attempt,
    want,
)
from pipeline.files import mended, replace, sealed
from pipeline.jobs.snapshot import snapshot
from pipeline.jobs.status import LIVE, StagePlace, StageStatus, of_places
from pipeline.plan.run import Run
from pipeline.runs.interruption import STOP_SIGNALS
from pipeline.settings.cluster import Resources
from pipeline.stages.base import PlannedStage
from pipeline.store.processes import Process
from pipeline.store.provenance import CODE_VARIABLE, code


@dataclass(frozen=True)
class Work:
    """A stage of a run, and how it stands."""

    run: Run
    stage: PlannedStage
    status: StageStatus
    is_shared: bool
    """Whether another run of this launch, or an earlier one, has it."""

    resources: Resources
    """What its job asks for."""

    @property
    def needs_job(self) -> bool:
        """Whether it is to be submitted."""
        return self.status.state in ("new", "failed", "cancelled") and not self.is_shared

    @property
    def folder(self) -> Path:
        """The stage's folder in the store."""
        return self.run.store.folder(self.stage)

    def item(self, open_keys: set[str]) -> WorkItem:
        """What an executor gets of it; of its needs those in ``open_keys``."""
        needs = sorted(needed.key for needed in self.stage.needs if needed.key in open_keys)
        run = str(self.run.folder.path.absolute())
        return WorkItem(run, self.stage.name, self.stage.key, tuple(needs), self.resources)


def survey(runs: Sequence[Run]) -> list[Work]:
    """Every stage of every run; one that several have is only the first one's to run."""
    places: dict[str, StagePlace] = {}
    for run in runs:
        for stage in run.plan.stages:
            needs = tuple(needed.key for needed in stage.needs)
            places[stage.key] = StagePlace(stage.name, stage.key, run.store.root, needs)
    states = of_places(places.values())
    seen: set[str] = set()
    work = []
    for run in runs:
        for stage in run.plan.stages:
            status = states[stage.key]
            belongs = str(run.folder.path.absolute())
            elsewhere = status.state in LIVE and _run_of(status) not in (None, belongs)
            resources = run.config.cluster.of_stage(stage.resources)
            work.append(Work(run, stage, status, stage.key in seen or elsewhere, resources))
            seen.add(stage.key)
    return work


def completed(work: Sequence[Work]) -> list[Work]:
    """Work with what the configuration leaves open, as far as the executor fills it in."""
    if not work:
        return []
    executor = executor_named(work[0].run.config.cluster.name)
    resources = executor.completed([item.resources for item in work])
    pairs = zip(work, resources, strict=True)
    return [dataclasses.replace(item, resources=each) for item, each in pairs]


def _run_of(status: StageStatus) -> str | None:
    return status.attempt.submission.task(status.attempt.index).run if status.attempt else None


def submit(runs: Sequence[Run], note: Callable[[str], None]) -> list[Submission]:
    """Submit what is missing of the runs and is not on its way. All of them share a store.

    Raises ``ClusterError`` where the executor refuses or cannot be asked; what was submitted before
    that stays, is known, and is not submitted again.
    """
    return mended(lambda: _submit(runs, note), note)


def _submit(runs: Sequence[Run], note: Callable[[str], None]) -> list[Submission]:
    store = runs[0].store
    executor = executor_named(runs[0].config.cluster.name)
    with only_submitter(store.root, note):
        for run in runs:
            run.claim()
            for stage in run.plan.stages:
                want(run.store.folder(stage), run.folder.path)
                for attempt in attempts(run.store.folder(stage)):
                    attempt.check()
        work = survey(runs)
        if unknown := [item.status for item in work if item.status.state == "unknown"]:
            raise ClusterError(
                f"{unknown[0].reason}, and stages were submitted before: whether they still run "
                "cannot be told. Type the same again later"
            )
        todo = completed([item for item in work if item.needs_job])
        if not todo:
            return []
        command = _Command.of_this_code(store.root)
        placed = {
            item.stage.key: item.status.job_id
            for item in work
            if item.status.state in LIVE and item.status.job_id
        }
        by_key = {item.stage.key: item for item in todo}
        items = [item.item({*by_key, *placed}) for item in todo]
        submissions: list[Submission] = []
        for jobs in executor.groups(items):
            submission = _submit_together(jobs, by_key, placed, command)
            submissions.append(submission)
            for index, job in enumerate(jobs):
                for item in job:
                    placed[item.key] = submission.job_id_of(index) or ""
        return submissions


def _submit_together(
    jobs: Sequence[Job],
    by_key: dict[str, Work],
    placed: dict[str, str],
    command: "_Command",
) -> Submission:
    """Record the intent to submit jobs that ask for the same, and submit them."""
    first = by_key[jobs[0][0].key]
    cluster, resources = first.run.config.cluster, first.resources
    executor = executor_named(cluster.name)
    tasks = [Task(job[0].run, {item.stage: item.key for item in job}) for job in jobs]
    needs = {key for job in jobs for item in job for key in item.needs}
    intent = {
        "cluster": executor.name,
        "executor_module": type(executor).__module__,
        "holder": Process.here().to_json(),
        "code": str(command.code),
        "after": sorted({placed[key] for key in needs}) if executor.keeps_order else [],
        "resources": resources.model_dump(mode="json"),
        "max_requeues": cluster.most_requeues,
        "patience_s": max(1.0, executor.warning_s(cluster, resources) / 2),
        "offline": cluster.is_offline,
    }
    submission = Submission.intend(first.run.store.root, intent, tasks)
    for index, job in enumerate(jobs):
        for item in job:
            record_attempt(by_key[item.key].folder, submission, index)
    executor.submit(submission, command.line(submission), cluster, resources)
    return submission


@dataclass(frozen=True, slots=True)
class _Command:
    """The shell command of jobs that run the code as it is now."""

    code: Path
    """A copy of the code."""
    provenance: Path
    """A file that says which code it is."""

    @classmethod
    def of_this_code(cls, store: Path) -> "_Command":
        copy = snapshot(store / "code")
        provenance = store / "code" / f"{copy.name}.{uuid.uuid4().hex[:8]}.json"
        replace(provenance, sealed(code(), provenance.name))
        return cls(copy, provenance)

    def line(self, submission: Submission) -> str:
        """It finds the copy before whatever else is installed."""
        path = os.pathsep.join([str(self.code), *filter(None, [os.environ.get("PYTHONPATH")])])
        return shlex.join([
            "env", *_blocked_signals(), f"PYTHONPATH={path}", f"{CODE_VARIABLE}={self.provenance}",
            sys.executable, "-P", "-u", "-m", "pipeline.jobs.job", str(submission.folder),
        ])  # fmt: skip


def _blocked_signals() -> list[str]:
    """Has a signal that comes while Python starts wait until the job can take it in."""
    options = [f"--block-signal={number.name}" for number in STOP_SIGNALS]
    knows_them = subprocess.run(["env", *options, "true"], capture_output=True, check=False)
    return options if knows_them.returncode == 0 else []
