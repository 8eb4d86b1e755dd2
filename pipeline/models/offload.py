"""Blocks whose weights stay in CPU memory or on disk, brought to the device when they run.

The device holds two slots, each as large as the largest block. While a block computes out of one,
the next block's weights are copied into the other by a thread, on a GPU on a stream of their own:

    compute      block 0 (slot 0)   block 1 (slot 1)   block 2 (slot 0)
    copy         block 1 -> slot 1  block 2 -> slot 0  block 3 -> slot 1

A block that runs several times in a row is brought once. At most one block's parameters point into
a slot at a time, all others to their own weights, so whatever raises in between leaves no damage.
"""

import math
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import StageError

Place = Literal["cpu", "disk"]
"""CPU memory (pinned beside a GPU), or memory-mapped safetensors files."""

ALIGNMENT = 256
"""Bytes to which a tensor starts in a slot."""


class StoredWeights:
    """The weights of one block in the place where they stay, and the parameters that use them.

    Pinned memory is given out in powers of two bytes per tensor: up to twice the weights. A file
    has lost its name as soon as it is mapped, so that no end of the process leaves it behind; it
    lies in the folder for temporary files (``TMPDIR``), which needs room for all blocks.
    """

    following: "StoredWeights | None" = None
    """The block that runs after this one."""

    def __init__(self, place: Place, pinned: bool) -> None:
        self.place, self.pinned = place, pinned
        self.parameters: list[nn.Parameter] = []
        self.tensors: list[Tensor] = []

    def keep(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take these parameters' weights, wherever they are, in place of those before.

        Raises ``StageError`` where the disk has no room.
        """
        self.parameters = list(parameters)
        weights = [parameter.data for parameter in self.parameters]
        self.tensors = (
            _written(weights)
            if self.place == "disk"
            else [_copied(tensor, self.pinned) for tensor in weights]
        )
        self.point_to(self.tensors)

    def point_to(self, tensors: Sequence[Tensor]) -> None:
        """Let the parameters use ``tensors``."""
        for parameter, tensor in zip(self.parameters, tensors, strict=True):
            parameter.data = tensor

    def views(self, memory: Tensor) -> list[Tensor]:
        """Tensors like the weights in ``memory``, uint8 ``[bytes]``."""
        views, start = [], 0
        for tensor in self.tensors:
            part = memory[start : start + tensor.nbytes]
            views.append(part.view(tensor.dtype).view(tensor.shape))
            start += _aligned(tensor.nbytes)
        return views

    @property
    def bytes(self) -> int:
        """Bytes that the weights take in a slot."""
        return sum(_aligned(tensor.nbytes) for tensor in self.tensors)


@dataclass(eq=False)
class _Slot:
    memory: Tensor
    stored: StoredWeights | None = None
    copied: "Future[torch.cuda.Event | None] | None" = None

    def wait(self) -> None:
        """Until the copy was done, or on a GPU until all that is launched now comes after it."""
        arrived = self.copied.result() if self.copied else None
        if arrived:
            torch.cuda.current_stream(self.memory.device).wait_event(arrived)

    def forget(self) -> None:
        self.wait()
        self.stored = self.copied = None


class Stream:
    """Brings blocks to ``device``, one after the other; ``slot_bytes`` hold the largest."""

    def __init__(self, device: torch.device, slot_bytes: int) -> None:
        self.device = device
        self._slots = [
            _Slot(torch.empty(slot_bytes, dtype=torch.uint8, device=device)) for _ in range(2)
        ]
        self._now: _Slot | None = None
        self._thread = ThreadPoolExecutor(1, "weights")
        self._side: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._side = torch.cuda.Stream(device)
            for slot in self._slots:  # not given to others before copies into it are done
                slot.memory.record_stream(self._side)

    def bring(self, stored: StoredWeights) -> None:
        """Have a block's weights on the device, and begin to copy those of the block after it."""
        if self._now and self._now.stored is stored:
            return
        self._put_back()
        slot = next((slot for slot in self._slots if slot.stored is stored), None)
        if slot is None:
            slot = self._slots[0]
            self._copy(stored, slot)
        slot.wait()
        stored.point_to(stored.views(slot.memory))
        self._now = slot
        other = self._slots[1 - self._slots.index(slot)]
        if stored.following and other.stored is not stored.following:
            self._copy(stored.following, other)

    def forget(self, stored: StoredWeights) -> None:
        """What the slots hold of a block is no longer right."""
        for slot in self._slots:
            if slot.stored is stored:
                slot.forget()
                self._now = None if self._now is slot else self._now

    def put_back(self, stored: StoredWeights) -> None:
        """Let a block use its own weights again."""
        if self._now and self._now.stored is stored:
            self._put_back()

    def _put_back(self) -> None:
        if self._now and self._now.stored:
            self._now.stored.point_to(self._now.stored.tensors)
        self._now = None

    def _copy(self, stored: StoredWeights, slot: _Slot) -> None:
        """Begin to fill a slot, after all that was launched until now: that may read the slot."""
        free = None
        if self._side:
            free = torch.cuda.current_stream(self.device).record_event()
        sources, targets = list(stored.tensors), stored.views(slot.memory)
        slot.stored = stored
        slot.copied = self._thread.submit(_copy_all, sources, targets, self._side, free)


@dataclass(frozen=True, slots=True)
class Offloaded:
    """One block's weights and the stream that brings them."""

    stream: Stream
    stored: StoredWeights

    def bring(self) -> None:
        """Have the weights on the device."""
        self.stream.bring(self.stored)

    def put_back(self) -> None:
        """Have the block's parameters where they stay."""
        self.stream.put_back(self.stored)

    def keep(self, parameters: Iterable[nn.Parameter]) -> None:
        """These are the block's parameters from now on."""
        self.stored.keep(parameters)
        self.stream.forget(self.stored)


def offloaded(blocks: Sequence[nn.Module], device: torch.device, place: Place) -> list[Offloaded]:
    """Move the blocks' weights to ``place``, one block after the other, in their order.

    The device needs room for the two slots. Raises ``StageError`` where the disk has no room.
    """
    stores = []
    for block in blocks:
        stored = StoredWeights(place, pinned=device.type == "cuda")
        stored.keep(block.parameters())
        stores.append(stored)
    stream = Stream(device, max((stored.bytes for stored in stores), default=0))
    return [Offloaded(stream, stored) for stored in stores]


def put_in_order(blocks: Sequence[Offloaded | None]) -> None:
    """Tell each block which one runs after it; nothing where the model is not offloaded."""
    stores = [block.stored for block in blocks if block]
    for stored, following in zip(stores, [*stores, None][1:], strict=True):
        stored.following = following


@torch.no_grad()
def move_all_but(blocks: Sequence[nn.Module], model: nn.Module, device: torch.device) -> None:
    """Move a model's buffers, and the parameters that no block has, to ``device``."""
    streamed = {id(parameter) for block in blocks for parameter in block.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in streamed:
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


def _copy_all(
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    side: torch.cuda.Stream | None,
    free: torch.cuda.Event | None,
) -> torch.cuda.Event | None:
    """Copy weights; on a GPU return the event after which they are there.

    A copy from pinned memory is only launched; one from a mapped file is read here.
    """
    if side is None or free is None:
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)
        return None
    with torch.cuda.stream(side):
        side.wait_event(free)
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source, non_blocking=True)
        arrived: torch.cuda.Event = side.record_event()
        return arrived


def _copied(tensor: Tensor, pinned: bool) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
    return empty.copy_(tensor)


def _written(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors, memory-mapped from a file."""
    named = {str(i): _copied(tensor, pinned=False) for i, tensor in enumerate(tensors)}
    try:
        with tempfile.TemporaryDirectory(prefix="multipruner-") as folder:
            path = Path(folder) / "block.safetensors"
            save_file(named, path)
            with safe_open(path, framework="pt", device="cpu") as file:
                return [file.get_tensor(name) for name in named]
    except (OSError, SafetensorError) as error:
        raise StageError(
            f"a block's weights cannot be written to {tempfile.gettempdir()}: {error}; "
            "set TMPDIR to a folder with room for the model, or use model.offload=cpu"
        ) from error


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT
