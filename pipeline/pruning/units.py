"""What can go in one step: units, candidates, and the cuts that a candidate is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.pruning.shape import EXPERTS_NAME, INSIDE_NAME, BlockKind


@dataclass(frozen=True, slots=True)
class Unit:
    """A kind of piece that a layer can lose in one step."""

    name: str
    """What it is called in files."""
    kinds: tuple[BlockKind, ...]
    """The blocks of the layer that it touches, in the order in which they run."""
    is_whole: bool
    """Whether those blocks go as a whole; else one group of channels, or of experts, goes off their
    tail, or of channels of every expert."""
    label: str
    """What a person reads before the number of the layer."""

    @property
    def counts(self) -> str:
        """What the width counts that it makes less, in words."""
        return "experts" if self.name == EXPERTS_NAME else "channels"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the units that a model must be able to lose for it to go."""
        return (self.name, *self.kinds) if self.is_whole else (self.name,)


ATTN = Unit("attn", ("attn",), is_whole=True, label="attention")
MLP = Unit("mlp", ("mlp",), is_whole=True, label="MLP")
ATTN_WIDTH = Unit("attn_width", ("attn",), is_whole=False, label="heads of layer")
MLP_WIDTH = Unit("mlp_width", ("mlp",), is_whole=False, label="MLP of layer")
LAYER = Unit("layer", ("attn", "mlp"), is_whole=True, label="layer")

EXPERTS = Unit(EXPERTS_NAME, ("mlp",), is_whole=False, label="experts of layer")
EXPERT_WIDTH = Unit(INSIDE_NAME, ("mlp",), is_whole=False, label="in experts of layer")

UNITS = {
    unit.name: unit for unit in (ATTN, MLP, ATTN_WIDTH, MLP_WIDTH, LAYER, EXPERTS, EXPERT_WIDTH)
}
"""Every unit by its name in files."""

BLOCKS = (ATTN, MLP)
MLP_CHANNELS = (MLP_WIDTH,)
HEADS = (ATTN_WIDTH,)
LAYERS = (LAYER,)
MIXTURES = (EXPERTS,)
ALL_MLP_CHANNELS = (MLP_WIDTH, EXPERT_WIDTH)
"""Of models with mixtures: of plain MLPs, and of all experts of a mixture at once."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What becomes of one block."""

    kind: BlockKind
    layer: int
    width_after: int
    """Channels, or experts, that are left; 0 where the block is gone."""
    is_inside: bool = False
    """Whether each expert of a mixture has that many channels left."""

    @property
    def block(self) -> str:
        """The block's name in statistics and orders, e.g. ``attn.3``."""
        return f"{self.kind}.{self.layer}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One piece that could go next."""

    unit: Unit
    layer: int
    width_after: int
    """Channels, or experts, that are left of each block that it touches; 0 where they go as a
    whole."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """What it does to blocks, in the order in which they run."""
        is_inside = self.unit == EXPERT_WIDTH
        return tuple(Cut(kind, self.layer, self.width_after, is_inside) for kind in self.unit.kinds)

    @property
    def piece(self) -> str:
        """What statistics call what it takes from, e.g. ``layer.3`` or ``attn.3``."""
        return f"{self.unit.name}.{self.layer}"

    def to_json(self) -> dict[str, Any]:
        """``unit`` (its name), ``layer`` and ``width_after``."""
        return {"unit": self.unit.name, "layer": self.layer, "width_after": self.width_after}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Candidate":
        """From those three keys; others are left alone. Raises ``PipelineError``: no such unit."""
        name = data["unit"]
        if name not in UNITS:
            raise PipelineError(f"a step removes a {name!r}; known are {', '.join(UNITS)}")
        return cls(UNITS[name], data["layer"], data["width_after"])
