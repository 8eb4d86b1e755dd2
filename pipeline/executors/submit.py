"""Submitting the stages of runs: what is missing, once, with dependencies, in one go."""

import dataclasses
import os
import shlex
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.executors.slurm import client as slurm
from pipeline.executors.slurm.client import ClusterError
from pipeline.executors.slurm.resources import Cluster
from pipeline.executors.snapshot import snapshot
from pipeline.executors.status import LIVE, StagePlace, StageStatus, of_places
from pipeline.executors.submission import Submission, Task, record_attempt, want
from pipeline.files import encode, replace
from pipeline.plan.run import Run
from pipeline.runs.interruption import STOP_SIGNALS
from pipeline.settings.core import ClusterConfig, StageResources
from pipeline.stages.base import PlannedStage
from pipeline.store.leases import Holder, holder_of, lease
from pipeline.store.provenance import CODE_VARIABLE, code

POLL_S = 0.2
SBATCH_PATIENCE_S = 90.0
"""A controller that restarts, or is busy, gets so much time."""
MOMENTARY = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Zero Bytes were transmitted",
    "temporarily unable to accept",
    "Slurm backup controller in standby mode",
)
LOCAL_TIMEOUT_MIN = 60 * 24 * 365
DAY_MIN = 24 * 60


@dataclass(frozen=True)
class Work:
    """A stage of a run, and how it stands."""

    run: Run
    stage: PlannedStage
    status: StageStatus
    is_shared: bool
    """Whether another run of this launch, or an earlier one, has it."""

    resources: StageResources
    """What its job asks for."""

    @property
    def needs_job(self) -> bool:
        """Whether it is to be submitted."""
        return self.status.state in ("new", "failed", "cancelled") and not self.is_shared


def survey(runs: Sequence[Run]) -> list[Work]:
    """Every stage of every run; one that several have is only the first one's to run."""
    found: dict[str, StagePlace] = {}
    for run in runs:
        for stage in run.plan.stages:
            needs = tuple(needed.key for needed in stage.needs)
            found[stage.key] = StagePlace(stage.name, stage.key, run.store.root, needs)
    states = of_places(found.values())
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
    """Work for SLURM, with what the configuration leaves open taken from the partitions."""
    cluster = Cluster.read()
    if cluster is None:
        raise ClusterError("SLURM does not answer; type the same again when sinfo works")
    return [dataclasses.replace(item, resources=cluster.completed(item.resources)) for item in work]


def _run_of(status: StageStatus) -> str | None:
    return status.attempt.submission.task(status.attempt.index).run if status.attempt else None


def submit(runs: Sequence[Run], note: Callable[[str], None]) -> list[Submission]:
    """Submit what is missing of the runs and is not on its way. All of them share a store.

    Raises ``ClusterError`` where SLURM refuses or cannot be asked; what was submitted before that
    stays, is known, and is not submitted again.
    """
    store = runs[0].store
    with _only_submitter(store.root, note):
        for run in runs:
            run.claim()
            for stage in run.plan.stages:
                want(run.store.folder(stage), run.folder.path)
        work = survey(runs)
        if any(item.status.state == "unknown" for item in work):
            raise ClusterError(
                "SLURM does not answer, and stages were submitted before: whether they still run "
                "cannot be told. Type the same again when squeue works"
            )
        todo = [item for item in work if item.needs_job]
        if not todo:
            return []
        copy = snapshot(store.root / "code")
        code_file = store.root / "code" / f"{copy.name}.{uuid.uuid4().hex[:8]}.json"
        replace(code_file, encode(code()))
        if runs[0].config.cluster.name == "slurm":
            todo = completed(todo)
        submissions: list[Submission] = []
        placed: dict[str, str] = {
            item.stage.key: item.status.job_id
            for item in work
            if item.status.state in LIVE and item.status.job_id
        }
        for group in _groups(todo, set(placed)):
            submission = _submit_group(group, placed, copy, code_file)
            submissions.append(submission)
            for index, item in enumerate(group):
                placed[item.stage.key] = submission.job_id_of(index) or ""
        return submissions


@contextmanager
def _only_submitter(root: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Wait until nobody else submits to this store."""
    folder = root / "submissions"
    told = False
    while True:
        with lease(folder) as guard:
            if guard is not None:
                yield
                return
        if not told:
            note(f"waiting: {holder_of(folder)} is submitting")
            told = True
        time.sleep(POLL_S)


def _groups(todo: Sequence[Work], under_way: set[str]) -> Iterator[list[Work]]:
    """What goes into one call of sbatch: equal resources, equal needs, none needs another.

    On this machine: all stages of a run, in one process.
    """
    if todo[0].run.config.cluster.name == "local":
        runs: dict[Path, list[Work]] = defaultdict(list)
        for item in todo:
            runs[item.run.folder.path].append(item)
        yield from runs.values()
        return
    depth: dict[str, int] = {}
    for item in todo:
        depth[item.stage.key] = 1 + max((depth.get(n.key, 0) for n in item.stage.needs), default=0)
    groups: dict[Any, list[Work]] = defaultdict(list)
    for item in todo:
        keys = (needed.key for needed in item.stage.needs)
        needs = tuple(sorted(key for key in keys if key in depth or key in under_way))
        same = (depth[item.stage.key], item.resources.model_dump_json(), needs)
        groups[same].append(item)
    for same in sorted(groups, key=lambda same: same[0]):
        yield groups[same]


def _submit_group(
    group: Sequence[Work], placed: dict[str, str], copy: Path, code_file: Path
) -> Submission:
    first = group[0]
    cluster = first.run.config.cluster
    is_local = cluster.name == "local"
    path = str(first.run.folder.path.absolute())
    if is_local:
        tasks = [Task(path, {item.stage.name: item.stage.key for item in group})]
    else:
        tasks = [
            Task(str(item.run.folder.path.absolute()), {item.stage.name: item.stage.key})
            for item in group
        ]
    waits_for = sorted({
        placed[needed.key]
        for item in group
        for needed in item.stage.needs
        if needed.key in placed and not is_local
    })  # fmt: skip
    intent = {
        "cluster": cluster.name,
        "holder": Holder.here().to_json(),
        "code": str(copy),
        "after": waits_for,
        "resources": first.resources.model_dump(mode="json"),
        "max_requeues": cluster.max_requeues,
        "patience_s": max(1.0, _warning_s(cluster, first.resources) / 2),
        "offline": cluster.offline,
    }
    submission = Submission.intend(first.run.store.root, intent, tasks)
    for index, item in enumerate(group):
        folder = item.run.store.folder(item.stage)
        record_attempt(folder, submission, 0 if is_local else index)
    if is_local:
        _start_here(submission, first.resources, _command(submission, copy, code_file))
    else:
        _sbatch(submission, cluster, first.resources, _command(submission, copy, code_file))
    return submission


def _command(submission: Submission, copy: Path, code_file: Path) -> str:
    """The shell command of a job. It finds the snapshot before whatever else is installed."""
    path = os.pathsep.join([str(copy), *filter(None, [os.environ.get("PYTHONPATH")])])
    # a signal that comes while Python starts waits until the job can take it in
    blocked = [f"--block-signal={number.name}" for number in STOP_SIGNALS]
    if slurm.ask("env", *blocked, "true") is None:
        blocked = []
    return shlex.join([
        "env", *blocked, f"PYTHONPATH={path}", f"{CODE_VARIABLE}={code_file}",
        sys.executable, "-P", "-u", "-m", "pipeline.executors.job", str(submission.folder),
    ])  # fmt: skip


def _start_here(submission: Submission, resources: StageResources, command: str) -> None:
    import submitit

    executor = submitit.LocalExecutor(folder=submission.folder)
    executor.update_parameters(
        timeout_min=resources.timeout_min or LOCAL_TIMEOUT_MIN,
        gpus_per_node=resources.gpus,
        stderr_to_stdout=True,
        signal_delay_s=60,
    )
    with _detached():
        job: submitit.Job[Any] = executor._submit_command(command)
    submission.record_job(job.job_id, Holder.of(int(job.job_id)).to_json())


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


def parameters(cluster: ClusterConfig, resources: StageResources) -> dict[str, Any]:
    """What submitit is told to ask SLURM for."""
    gpus = f"gpu:{resources.gpu_type}:{resources.gpus}" if resources.gpu_type else None
    if gpus is None and resources.gpus:
        gpus = f"gpu:{resources.gpus}"
    mem = None if resources.mem_gb is None else f"{round(resources.mem_gb * 1024)}M"
    wanted = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "gres": gpus if resources.gpus else None,
        "cpus_per_task": resources.cpus,
        "mem": mem,
        "time": resources.timeout_min,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        # the shell is to outlive the signals, as srun and the stage do
        "setup": ["trap : TERM USR2", *(resources.setup or [])],
        "signal_delay_s": _warning_s(cluster, resources),
        "array_parallelism": cluster.array_parallelism,
        "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            **resources.parameters,
        },
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _warning_s(cluster: ClusterConfig, resources: StageResources) -> int:
    """Seconds of warning: less where the time limit itself is short."""
    minutes = resources.timeout_min or DAY_MIN
    return min(cluster.warn_s, minutes * 60 // 4)


def _sbatch(
    submission: Submission, cluster: ClusterConfig, resources: StageResources, command: str
) -> None:
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(folder=submission.folder)
    executor.update_parameters(**parameters(cluster, resources), job_name=submission.name)
    if submission.intent["after"]:
        after = ":".join(submission.intent["after"])
        executor.update_parameters(dependency=f"afterok:{after}")
    if submission.tasks > 1:
        executor.parameters["map_count"] = submission.tasks
    end = time.monotonic() + SBATCH_PATIENCE_S
    while True:
        try:
            with _outside_of_jobs():
                job_id = executor._submit_command(command).job_id
            break
        except FailedJobError as error:
            # sbatch may have been heard although it was not answered
            if found := (slurm.queue([submission.name]) or {}).get(submission.name):
                job_id = found[0].id.partition("_")[0]
                break
            told = str(error).strip()
            if not any(text in told for text in MOMENTARY) or time.monotonic() > end:
                raise ClusterError(f"SLURM refuses {submission.name}: {told}") from error
            time.sleep(1)
    submission.record_job(job_id)


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Without the variables of a job that this process may be part of: sbatch would obey them."""
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_")) and name != "SLURM_CONF"
    }
    if "SLURM_JOB_ID" not in hidden:
        hidden = {}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
