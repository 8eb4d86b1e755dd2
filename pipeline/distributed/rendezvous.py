"""Whether this process is one of several that share the candidates, and how they find each other.

Imports no torch: a wrong configuration of one process is to be told at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass


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


def ranks_of_torchrun(environment: Mapping[str, str]) -> Ranks | None:
    """What torchrun set; None without it, and for one process."""
    if "RANK" not in environment or "MASTER_ADDR" not in environment:
        return None
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        return None
    return Ranks(
        rank=int(environment["RANK"]),
        size=size,
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        local_size=int(environment.get("LOCAL_WORLD_SIZE", str(size))),
        init_method="env://",
    )
