"""Tensors: in files, and in more bits."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import DamagedError


def wide(values: Tensor) -> Tensor:
    """In float32, where the format has fewer bits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def stored(module: nn.Module) -> dict[str, Tensor]:
    """What a module's files hold: parameters, tied ones once, and the buffers that are kept."""
    buffers = {name for name, _ in module.named_buffers()} & module.state_dict().keys()
    kept = {name: module.get_buffer(name) for name in sorted(buffers)}
    return dict(module.named_parameters()) | kept


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ``DamagedError`` where it is not whole."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedError(path, "it is cut short or garbled") from error
