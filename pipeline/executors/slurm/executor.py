"""SLURM behind the interface of executors."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.distributed.rendezvous import Ranks
from pipeline.errors import ClusterError
from pipeline.executors.base import (
    Executor,
    Job,
    JobStatus,
    WorkItem,
    depths_of,
    warning_within,
)
from pipeline.executors.slurm import client, states
from pipeline.executors.slurm.environment import current_job, ranks
from pipeline.executors.slurm.section import SlurmSection, StageResources
from pipeline.executors.submission import Attempt, Submission
from pipeline.store.processes import CurrentJob

if TYPE_CHECKING:
    from pipeline.settings.core import Config

KILLED_WITHIN_S = 120.0


class Slurm(Executor[SlurmSection, StageResources]):
    """Jobs and arrays of jobs with dependencies, submitted by sbatch."""

    name = "slurm"
    section = SlurmSection
    place = "for SLURM"

    def problems(self, config: "Config") -> list[str]:
        """What does not go together, and what the cluster does not have."""
        from pipeline.executors.slurm import resources

        cluster = config.cluster
        assert isinstance(cluster, SlurmSection)
        problems = resources.problems(cluster)
        if config.model.device == "cuda" and not cluster.of_stage("prune").gpus:
            problems.append(
                "model.device: cuda is asked for and no GPU; give cluster.gpus=1 or more"
            )
        if cluster.offline and config.tracking.mode == "online":
            problems.append(
                "tracking.mode: online does not go with cluster.offline=true; use offline"
            )
        for key, value in (("store.dir", config.store.dir), ("run.dir", config.run.dir or "")):
            if "%" in str(Path(value).absolute()):
                problems.append(f"{key}: {value} holds a %, which SLURM replaces; choose another")
        return problems

    def warnings(self, store: Path) -> list[str]:
        """Where the nodes may not see the folder of results."""
        from pipeline.executors.slurm.resources import not_shared

        warning = not_shared(store)
        return [warning] if warning else []

    def device(self, cluster: SlurmSection) -> str:
        """The GPU where jobs ask for one and torch can use it."""
        import torch

        return "cuda" if cluster.of_stage("prune").gpus and torch.version.cuda else "cpu"

    def completed(self, resources: Sequence[StageResources]) -> list[StageResources]:
        """With time and memory taken from the partitions."""
        from pipeline.executors.slurm.resources import Cluster

        cluster = Cluster.read()
        if cluster is None:
            raise ClusterError("SLURM does not answer; type the same again when sinfo works")
        return [cluster.completed(each) for each in resources]

    def groups(self, items: Sequence[WorkItem]) -> list[list[Job]]:
        """One call of sbatch each: equal resources, equal needs, none needs another."""
        depths = depths_of(items)
        groups: dict[Any, list[Job]] = defaultdict(list)
        for item in items:
            same = (depths[item.key], item.resources.model_dump_json(), item.needs)
            groups[same].append((item,))
        return [groups[same] for same in sorted(groups, key=lambda same: same[0])]

    def warning_s(self, cluster: SlurmSection, resources: StageResources) -> float:
        """Seconds before the time limit at which SLURM signals."""
        return warning_within(cluster.warn_s, resources.timeout_min)

    def submit(
        self,
        submission: Submission,
        command: str,
        cluster: SlurmSection,
        resources: StageResources,
    ) -> None:
        """Call sbatch."""
        from pipeline.executors.slurm import sbatch

        sbatch.submit(submission, command, cluster, resources)

    def statuses(self, attempts: Sequence[Attempt]) -> Mapping[Attempt, JobStatus]:
        """Ask squeue and sacct."""
        return states.statuses(attempts)

    def cancel(self, submission: Submission, index: int) -> bool:
        """Call scancel."""
        job_id = submission.job_id_of(index)
        if job_id is None or not client.cancel([job_id]):
            stages = ", ".join(submission.task(index).stages)
            raise ClusterError(
                f"SLURM did not take the cancellation of {stages}; it ends by itself when it "
                "starts, or after its present step. Type the same again when squeue works"
            )
        return True

    def current_job(self, environment: Mapping[str, str]) -> CurrentJob | None:
        """From SLURM's variables."""
        return current_job(environment)

    def ranks(self, environment: Mapping[str, str]) -> Ranks | None:
        """From srun's variables."""
        return ranks(environment)

    def is_ending(self, job: CurrentJob) -> bool:
        """Whether SLURM ends or requeues the job already; False where it does not answer."""
        return client.state_of(job.id) not in ("RUNNING", None)

    def requeue(self, job: CurrentJob) -> bool:
        """Call scontrol requeue, and wait for the end that it brings.

        A job that ended by itself before would count as failed.
        """
        if not client.requeue(job.id):
            return False
        time.sleep(KILLED_WITHIN_S)
        return True
