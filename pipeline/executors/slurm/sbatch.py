"""Submitting with sbatch, through submitit."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ClusterError
from pipeline.executors.base import warning_within
from pipeline.executors.slurm import client
from pipeline.executors.slurm.section import SlurmSection, StageResources
from pipeline.executors.submission import Submission

PATIENCE_S = 90.0
"""A controller that restarts, or is busy, gets so much time."""
MOMENTARY = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Zero Bytes were transmitted",
    "temporarily unable to accept",
    "Slurm backup controller in standby mode",
)


def submit(
    submission: Submission, command: str, cluster: SlurmSection, resources: StageResources
) -> None:
    """Submit a job or an array, and record its id. Raises ``ClusterError`` where SLURM refuses."""
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(folder=submission.folder)
    executor.update_parameters(**parameters(cluster, resources), job_name=submission.name)
    if submission.after:
        executor.update_parameters(dependency=f"afterok:{':'.join(submission.after)}")
    if submission.tasks > 1:
        executor.parameters["map_count"] = submission.tasks
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            with _outside_of_jobs():
                job_id = executor._submit_command(command).job_id
            break
        except FailedJobError as error:
            # sbatch may have been heard although it was not answered
            if jobs := (client.queue([submission.name]) or {}).get(submission.name):
                job_id = jobs[0].id.partition("_")[0]
                break
            refusal = str(error).strip()
            if not any(text in refusal for text in MOMENTARY) or time.monotonic() > end:
                raise ClusterError(f"SLURM refuses {submission.name}: {refusal}") from error
            time.sleep(1)
    submission.record_job(job_id)


def parameters(cluster: SlurmSection, resources: StageResources) -> dict[str, Any]:
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
        "signal_delay_s": warning_within(cluster.warn_s, resources.timeout_min),
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
