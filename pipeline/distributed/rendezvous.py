"""Whether this process is one of several that share the candidates, and how they find each other.

Imports no torch: a wrong configuration of one process is to be told at once.
"""

import re
import socket
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_PORT, PORTS = 20000, 12000
"""Where the ports start that a SLURM job may meet on, and how many there are: up to where Linux
begins to give ports to outgoing connections, any of which could hold the one that is needed."""
ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of a job."""

    rank: int
    size: int
    """Processes of the job, at least two."""
    local_rank: int
    """Its number among those of its machine, which is its GPU's number."""
    local_size: int
    """Processes on its machine; the most on any, where machines differ."""
    init_method: str
    """Where they meet, as ``torch.distributed`` wants it."""


def ranks_from_environment(environment: Mapping[str, str]) -> Ranks | None:
    """What torchrun or srun set; None for one process, a SLURM batch script among them."""
    if "RANK" in environment and "MASTER_ADDR" in environment:
        ranks = _of_torchrun(environment)
    elif "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        ranks = _of_srun(environment)
    else:
        return None
    return ranks if ranks.size > 1 else None


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
    try:
        told = subprocess.run(
            ["scontrol", "--oneliner", "show", "node", node],
            capture_output=True, text=True, timeout=ANSWER_S, check=False,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bNodeAddr=(\S+)", told.stdout)
    return match[1] if match else None


def _of_torchrun(environment: Mapping[str, str]) -> Ranks:
    size = int(environment.get("WORLD_SIZE", "1"))
    return Ranks(
        rank=int(environment["RANK"]),
        size=size,
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        local_size=int(environment.get("LOCAL_WORLD_SIZE", str(size))),
        init_method="env://",
    )


def _of_srun(environment: Mapping[str, str]) -> Ranks:
    size = int(environment["SLURM_STEP_NUM_TASKS"])
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
