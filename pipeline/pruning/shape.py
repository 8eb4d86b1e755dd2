"""The blocks of a dense model: how wide each one is, and how many parameters it has."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, Self, get_args

BlockKind = Literal["attn", "mlp"]
BLOCK_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
BLOCK_NAMES: dict[BlockKind, str] = {"attn": "attention", "mlp": "MLP"}
EXPERTS_NAME = "experts"
"""The unit by which a mixture loses experts."""
INSIDE_NAME = "expert_width"
"""The unit by which all experts of a mixture become narrower."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What makes an MLP a mixture of experts, whose width counts experts."""

    experts_per_token: int
    """Experts that the router takes for each token: the least that a mixture has."""
    expert_params: int
    """Parameters of one expert, without what the router has for it. All belong to its channels."""
    expert_width: int = 0
    """Intermediate channels of an expert; 0 in files of runs that could not cut them."""

    def lost(self, inside: int | None) -> int:
        """Parameters that an expert of ``inside`` channels lacks; None: it is whole."""
        if inside is None or not self.expert_width:
            return 0
        return self.expert_params - self.expert_params * inside // self.expert_width


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One attention or MLP block of the dense model, without the layer norms around it."""

    width: int
    """Query channels (heads x head_dim) of an attention, intermediate channels of an MLP, experts
    of a mixture."""
    group_width: int
    """Channels of the smallest group that can be removed: all query heads of one key/value head;
    1 in an MLP. Every width of the block is a multiple of it."""
    params: int
    """Parameters of the whole block."""
    fixed_params: int
    """Those that do not depend on the width: biases of the output, norms of queries and keys."""
    mixture: Mixture | None = None
    """Of an MLP that is a mixture of experts; None: every token passes all parameters."""

    def params_at(self, width: int, inside: int | None = None) -> int:
        """Parameters of the block cut to ``width`` channels, or experts of ``inside`` channels."""
        params = self.fixed_params + (self.params - self.fixed_params) * width // self.width
        return params - width * self.mixture.lost(inside) if self.mixture else params

    def units(self, kind: BlockKind) -> tuple[str, ...]:
        """The units that make it narrower; by the first its width is counted."""
        return (EXPERTS_NAME, INSIDE_NAME) if self.mixture else (f"{kind}_width",)

    def full(self, unit: str) -> int:
        """How many there are of what a unit takes: channels, experts, or channels of each."""
        return self.mixture.expert_width if self.mixture and unit == INSIDE_NAME else self.width

    def least(self, unit: str) -> int:
        """The fewest of them that it has while it is there, in steps of one."""
        return self.mixture.experts_per_token if self.mixture and unit == EXPERTS_NAME else 1

    def active_params_at(self, width: int, inside: int | None = None) -> int:
        """Those of ``params_at`` that one token passes."""
        if self.mixture is None:
            return self.params_at(width)
        passed_by = max(0, width - self.mixture.experts_per_token)
        of_one = self.mixture.expert_params - self.mixture.lost(inside)
        return self.params_at(width, inside) - passed_by * of_one


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One decoder layer of the dense model. A block that the layer does not have is None."""

    attn: BlockShape | None
    mlp: BlockShape | None

    def block(self, kind: BlockKind) -> BlockShape | None:
        """The layer's attention or MLP."""
        return self.attn if kind == "attn" else self.mlp

    @property
    def params(self) -> int:
        """Parameters of the layer's blocks."""
        return sum(block.params for block in (self.attn, self.mlp) if block)


@dataclass(frozen=True, slots=True)
class BarredUnit:
    """A unit that a model cannot lose, e.g. ``attn_width``, and why, as a clause for messages."""

    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What must be known of a dense model to count its parameters in any state."""

    layers: tuple[LayerShape, ...]
    """From the input to the output."""
    total_params: int
    """All parameters, embeddings and norms included, a tied embedding once."""
    barred: tuple[BarredUnit, ...] = ()
    """What cannot be removed although it is there."""

    @classmethod
    def repeated(
        cls, count: int, attn: BlockShape | None, mlp: BlockShape | None, total_params: int
    ) -> Self:
        """A model of ``count`` equal layers."""
        return cls((LayerShape(attn, mlp),) * count, total_params)

    def block(self, kind: BlockKind, layer: int) -> BlockShape | None:
        """The attention or MLP of a layer; None where the layer has none."""
        return self.layers[layer].block(kind)

    def widths(self, kind: BlockKind) -> tuple[int, ...]:
        """Full width of each layer's block; 0 where the layer has none."""
        blocks = (layer.block(kind) for layer in self.layers)
        return tuple(block.width if block else 0 for block in blocks)

    @property
    def has_mixtures(self) -> bool:
        """Whether any MLP is a mixture of experts."""
        return bool(self.mixtures)

    @property
    def expert_widths(self) -> tuple[int, ...]:
        """Channels of each expert of each layer's mixture; 0 where there is none."""
        mlps = (layer.mlp for layer in self.layers)
        return tuple(mlp.full(INSIDE_NAME) if mlp and mlp.mixture else 0 for mlp in mlps)

    @property
    def mixtures(self) -> dict[int, BlockShape]:
        """The mixtures of experts by their layers."""
        return {
            layer: shape.mlp
            for layer, shape in enumerate(self.layers)
            if shape.mlp and shape.mlp.mixture
        }

    def params(self, kind: BlockKind) -> int:
        """Parameters of all attentions or of all MLPs."""
        blocks = (layer.block(kind) for layer in self.layers)
        return sum(block.params for block in blocks if block)

    @property
    def params_outside_blocks(self) -> int:
        """Parameters of embeddings, norms and head."""
        return self.total_params - sum(layer.params for layer in self.layers)

    def why_barred(self, unit: str) -> str | None:
        """Why the model cannot lose such a unit; None where it can."""
        return next((barred.reason for barred in self.barred if barred.unit == unit), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: equal neighbouring layers once, with their number as ``count``."""
        runs = [
            {
                "count": len(list(run)),
                **{kind: _block_to_json(layer.block(kind)) for kind in BLOCK_KINDS},
            }
            for layer, run in groupby(self.layers)
        ]
        barred = [asdict(unit) for unit in self.barred]
        return {
            "layers": runs,
            "total_params": self.total_params,
            **({"barred": barred} if barred else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``.

        Also reads the form of earlier runs: the number of layers, and one attention and MLP for
        all of them, whose ``group_width`` was called ``granule``.
        """
        runs = data["layers"]
        if isinstance(runs, int):
            runs = [{"count": runs, "attn": data["attn"], "mlp": data["mlp"]}]
        layers = tuple(
            layer
            for run in runs
            for layer in [LayerShape(_block_from_json(run["attn"]), _block_from_json(run["mlp"]))]
            * run["count"]
        )
        barred = tuple(BarredUnit(**unit) for unit in data.get("barred", ()))
        return cls(layers, data["total_params"], barred)


def _block_to_json(block: BlockShape | None) -> dict[str, Any] | None:
    """Without ``mixture`` where it is none, as in the files of earlier runs."""
    if block is None:
        return None
    data = asdict(block)
    return data if block.mixture else {key: each for key, each in data.items() if key != "mixture"}


def _block_from_json(data: Mapping[str, Any] | None) -> BlockShape | None:
    if data is None:
        return None
    names = {"granule": "group_width"}
    values = {names.get(key, key): value for key, value in data.items()}
    if mixture := values.get("mixture"):
        values["mixture"] = Mixture(**mixture)
    return BlockShape(**values)
