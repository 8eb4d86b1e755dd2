"""How far training has come, on disk: one file, whole or absent."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.files import Json, understood
from pipeline.models.tensors import read_tensors

FACTS = "facts"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and plain values."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Json]

    def write(self, path: Path) -> None:
        """Take the place of what is there. There is one writer."""
        temporary = path.with_name(f".{path.name}.tmp")
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, temporary, {FACTS: json.dumps(self.facts)})
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint | None":
        """What was written; None where nothing was. Raises ``DamagedError``."""
        if not path.exists():
            return None
        tensors = read_tensors(path)

        def facts() -> Json:
            with safe_open(path, "pt") as opened:
                return json.loads(opened.metadata()[FACTS])

        return cls(tensors, understood(path, facts))


def remove(path: Path) -> None:
    """Remove a checkpoint, and what a kill left of the next one."""
    path.unlink(missing_ok=True)
    path.with_name(f".{path.name}.tmp").unlink(missing_ok=True)
