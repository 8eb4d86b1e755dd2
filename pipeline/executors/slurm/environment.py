"""What SLURM tells a process of its job, by variables of the environment."""

import re
import socket
import zlib
from collections.abc import Mapping

from pipeline.distributed.rendezvous import Ranks
from pipeline.executors.slurm.client import ask
from pipeline.store.processes import CurrentJob

FIRST_PORT, PORTS = 20000, 12000
"""Where the ports start that a SLURM job may meet on, and how many there are: up to where Linux
begins to give ports to outgoing connections, any of which could hold the one that is needed."""
ANSWER_S = 10.0
"""Processes that wait for one another do not wait longer for an address."""
VARIABLES = (
    "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT", "SLURM_JOB_QOS",
    "SLURM_JOB_NODELIST", "SLURMD_NODENAME",
    "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK", "SLURM_JOB_GPUS",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""What is noted with results."""


def current_job(environment: Mapping[str, str]) -> CurrentJob | None:
    """The job that a process with this environment is part of; None where it is of none."""
    job_id = environment.get("SLURM_JOB_ID")
    if not job_id:
        return None
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_NAME")  # an id alone comes again
    return CurrentJob(
        scheduler="slurm",
        id=job_id,
        submission_id=environment.get("SLURM_ARRAY_JOB_ID") or job_id,
        index=int(environment.get("SLURM_ARRAY_TASK_ID", "0")),
        restart=int(environment.get("SLURM_RESTART_COUNT", "0")),
        identity=" ".join(environment.get(name, "") for name in names).strip(),
        node=environment.get("SLURMD_NODENAME"),
        variables={name: environment[name] for name in VARIABLES if name in environment},
    )


def ranks(environment: Mapping[str, str]) -> Ranks | None:
    """What srun set; None for one process, and in a batch script."""
    if "SLURM_PROCID" not in environment or "SLURM_STEP_NUM_TASKS" not in environment:
        return None
    size = int(environment["SLURM_STEP_NUM_TASKS"])
    if size == 1:
        return None
    names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    step = "/".join(environment.get(name, "") for name in names)
    port = FIRST_PORT + zlib.crc32(step.encode()) % PORTS
    local_size = _most_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", str(size)))
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    host = address_of(first_host(nodes)) if local_size < size else "127.0.0.1"
    return Ranks(
        rank=int(environment["SLURM_PROCID"]),
        size=size,
        local_rank=int(environment.get("SLURM_LOCALID", "0")),
        local_size=local_size,
        init_method=f"tcp://{host}:{port}",
    )


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list such as ``gpu[07-09,12],login``."""
    match = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^\[,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else nodes


def _most_per_node(tasks: str) -> int:
    """The most tasks on any node, of what SLURM writes as ``4(x2),3``."""
    return max(int(re.split(r"\D", part)[0]) for part in tasks.split(","))


def address_of(node: str) -> str:
    """Where to reach a node: by its name, or by what SLURM has as its address.

    SLURM's names need not be hosts: in clouds, and with several nodes on one machine, they are not.
    """
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        return _address_in_slurm(node) or node
    return node


def _address_in_slurm(node: str) -> str | None:
    text = ask("scontrol", "--oneliner", "show", "node", node, timeout_s=ANSWER_S)
    match = re.search(r"\bNodeAddr=(\S+)", text or "")
    return match[1] if match else None
