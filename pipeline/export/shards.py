"""Weights in safetensors files of a limited size, written as they come."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def write_shards(tensors: Iterable[tuple[str, "Tensor"]], folder: Path, most_bytes: int) -> None:
    """Write named weights into ``folder``, and an index where there is more than one file.

    No more than one file's weights are in memory beside the model.
    """
    places: dict[str, int] = {}
    pending: dict[str, Tensor] = {}
    written = size = total = 0
    for name, tensor in tensors:
        if pending and size + tensor.nbytes > most_bytes:
            _write(pending, folder / f"{written}.part")
            written, pending, size = written + 1, {}, 0
        pending[name] = tensor.detach().cpu().contiguous().clone()
        places[name] = written
        size, total = size + tensor.nbytes, total + tensor.nbytes
    _write(pending, folder / f"{written}.part")
    count = written + 1
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    if count == 1:
        (folder / "0.part").rename(folder / WHOLE)
        return
    for place, name in enumerate(names):
        (folder / f"{place}.part").rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: names[place] for name, place in places.items()},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write(tensors: dict[str, "Tensor"], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors lets nobody else read what it writes


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights in a folder; reads no weights."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes
