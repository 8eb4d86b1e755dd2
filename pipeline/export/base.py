"""What a target is: files of one kind, for engines that open them without this project."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.files import Json
from pipeline.settings.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.packing import PackedModel
    from pipeline.models.source import ModelSource


GIGABYTE = 10**9


class TargetConfig(Section):
    """What every target can be told."""

    enabled: bool = False
    """Whether it is written; export=NAME says so."""


class WeightsConfig(TargetConfig):
    """Weights in safetensors."""

    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the weights; null is model.dtype."""
    shard_gb: float = Field(5.0, gt=0, allow_inf_nan=False)
    """Gigabytes of a file at most."""

    @property
    def shard_bytes(self) -> int:
        """The same in bytes."""
        return int(self.shard_gb * GIGABYTE)


@dataclass(frozen=True)
class Exporting:
    """A model that is being exported."""

    packed: "PackedModel"
    source: "ModelSource"
    settings: Any
    """The target's own section."""
    dtype: str
    """Number format of the live model."""
    ids: "Tensor"
    """Windows of tokens ``[windows, tokens]`` for the check."""
    note: Callable[[str], None]
    """Tells a person something."""
    dense: "Callable[[], PackedModel]"
    """Loads the dense model, in the place of the pruned one: for what is measured of both."""

    @property
    def number_format(self) -> str:
        """Of the weights that are written: what the target was told, else the live model's."""
        told: str | None = self.settings.dtype
        return told or self.dtype


@dataclass(frozen=True)
class Target:
    """A file of this folder declares one as ``TARGET``."""

    name: str
    """``export=NAME``, ``export.NAME.*`` and the folder that is written."""
    section: type[TargetConfig]
    refused: "Callable[[ModelSource, Any, bool | None], str | None]"
    """Why a model cannot be written with these settings, in words; None where it can. The last
    says whether its layers will be alike, None where that is not known. Loads nothing."""
    write: Callable[[Exporting, Path], Mapping[str, Json]]
    """Writes into an empty folder, and returns what to know of it."""
    check: Callable[[Exporting, Path], Mapping[str, Json]]
    """Opens the folder elsewhere, and returns what was compared. Raises ``StageError`` where it
    differs from the live model."""
    how_to_open: str
    """For the model card, in Markdown; ``{name}`` stands for the folder, ``{auto}`` for the class
    of transformers that opens it, ``{code}`` for what lets its code run."""
    version: int = 1
    """Raised by hand when the same model would be written otherwise."""
