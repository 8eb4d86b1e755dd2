"""How much may be in memory at a time while candidates are scored."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pipeline.errors import StageError
from pipeline.models.prunable import PrunableModel

CPU_TOKENS = 2048
"""Tokens that go through a block at a time on a CPU: what stays in its caches."""
GPU_TOKENS = 32768
"""On a GPU: enough to fill it."""
WORKING_SHARE = 0.5
"""Most of the budget that a block's own activations may take."""


def too_much(what: str, seqlen: int, device: torch.device) -> StageError:
    """The error where the least that can walk at a time, in words, does not fit."""
    return StageError(
        f"out of memory with {what} and one window of {seqlen} tokens on {device}; shorten "
        "calibration.seqlen or load the model in half precision (model.dtype)"
    )


@dataclass(frozen=True, slots=True)
class Budget:
    """Sizes, in sequences: the hidden states of one window under one candidate."""

    sequences: int
    """Sequences that fit into memory."""
    rows: int
    """Sequences that go through a block at a time."""

    @classmethod
    def now(cls, model: PrunableModel, seqlen: int, fraction: float, ours: int) -> "Budget":
        """What is free now, and ``ours`` bytes that hold earlier states, as sequences."""
        size = seqlen * model.hidden_size * model.model.dtype.itemsize
        on_gpu = model.device.type == "cuda"
        budget = fraction * (free_bytes(model.device) + ours)
        widest = max((block.working_width for block in model.blocks), default=0)
        working = size * (8 + 4 * widest // model.hidden_size)
        wanted = (GPU_TOKENS if on_gpu else CPU_TOKENS) // seqlen
        rows = max(1, min(wanted, int(WORKING_SHARE * budget // working)))
        return cls(max(1, int((budget - rows * working) // size)), rows)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on ``device``, within this process's own limit."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        limit = int(torch.cuda.get_per_process_memory_fraction(device) * total)
        return min(free, limit - reserved) + reserved - torch.cuda.memory_allocated(device)
    return min([int(psutil.virtual_memory().available), *_control_groups()])


def _control_groups() -> list[int]:
    """What is left of the limits that a scheduler or container set (control groups, version 2)."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition("::")[2]
    except FileNotFoundError:
        return []
    left = []
    folder = Path("/sys/fs/cgroup") / own.lstrip("/")
    for group in (folder, *folder.parents):
        try:
            limit = (group / "memory.max").read_text(encoding="ascii").strip()
            used = int((group / "memory.current").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if limit != "max":
            left.append(max(0, int(limit) - used))
    return left
