"""Tensors in files."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import DamagedError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ``DamagedError`` where it is not whole."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedError(path, "it is cut short or garbled") from error
