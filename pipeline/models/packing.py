"""A pruned model as layers again, for files that others open: names, widths and weights.

Blocks that are left are paired anew, each attention with the MLP that follows it, whatever layers
they came from: as many layers as that needs, and exact, since norms move with their blocks, and so
does what the configuration lists for an attention (its type, e.g. a sliding window; whether it has
rotary embeddings).

The first layer always has an attention, one of zeros where it lost its own: engines ask the first
layer's cache how long a sequence is.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PretrainedConfig

from pipeline.errors import StageError
from pipeline.models.blocks import Block
from pipeline.models.families import stock_type
from pipeline.models.families.base import SKIP_NAMES, Family, Heads
from pipeline.models.modelling import CAUSAL, opener_name
from pipeline.models.prunable import PrunableModel
from pipeline.models.tensors import stored
from pipeline.pruning.shape import BLOCK_KINDS, BlockKind

NO_EMPTY_EXPERTS = (
    "its mixtures have different numbers of experts, and experts of zeros in the place of those "
    "that went would be taken by the router; leave export.pad out: export=hf writes layers of any "
    "width"
)


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A block as it is written: with zeros where ``width`` is more than it has."""

    block: Block
    width: int
    inside: int | None
    """Channels of each expert of a mixture; None where it is none."""

    @classmethod
    def of(cls, block: Block) -> "PackedBlock":
        """The block as it is."""
        return cls(block, block.width, block.inside)

    @property
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The block's weights by their names inside a layer."""
        block, layout = self.block, self.block.layout
        if block.offloaded:
            block.offloaded.bring()
        is_padded = (self.width, self.inside) != (block.width, block.inside)
        body = stored(block.body) | (block.padded(self.width, self.inside) if is_padded else {})
        yield from ((f"{layout.body}.{name}", tensor) for name, tensor in body.items())
        for name, norm in ((layout.norm_before, block.norm_before),
                           (layout.norm_after, block.norm_after)):  # fmt: skip
            if name:
                yield from ((f"{name}.{inner}", t) for inner, t in stored(norm).items())


class Widths(NamedTuple):
    """What a layer has, 0 of what it lacks."""

    query: int
    """Query heads."""
    key_value: int
    """Key/value heads."""
    intermediate: int
    """Channels of a plain MLP."""
    experts: int
    expert_width: int
    """Channels of each expert."""


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer: an attention and the MLP behind it; None where there is none."""

    attn: PackedBlock | None
    mlp: PackedBlock | None

    def block(self, kind: BlockKind) -> PackedBlock | None:
        """The layer's attention or MLP."""
        return self.attn if kind == "attn" else self.mlp

    def with_block(self, kind: BlockKind, block: PackedBlock) -> "PackedLayer":
        """The layer with another attention or MLP."""
        return replace(self, attn=block) if kind == "attn" else replace(self, mlp=block)

    @property
    def heads(self) -> tuple[int, int]:
        """Query heads and key/value heads; zeros without an attention."""
        if self.attn is None:
            return 0, 0
        channels, width = self.attn.block.channels, self.attn.width
        assert isinstance(channels, Heads)
        return width // channels.head_dim, width // channels.group_width

    @property
    def intermediate_size(self) -> int:
        """Channels of the MLP; 0 without one, and where it is a mixture."""
        return self.mlp.width if self.mlp and not self.mlp.block.is_mixture else 0

    @property
    def experts(self) -> int:
        """Experts of the mixture; 0 without one."""
        return self.mlp.width if self.mlp and self.mlp.block.is_mixture else 0

    @property
    def expert_width(self) -> int:
        """Channels of each expert of the mixture; 0 without one."""
        return (self.mlp.inside if self.mlp else None) or 0

    @property
    def widths(self) -> Widths:
        """All of them."""
        return Widths(*self.heads, self.intermediate_size, self.experts, self.expert_width)

    @property
    def is_whole(self) -> bool:
        """Whether it has both blocks."""
        return self.attn is not None and self.mlp is not None


def _width_names(family: Family) -> tuple[str, str, str, str, str]:
    """What the configuration calls ``PackedLayer.widths``.

    The last may be the third again, where all MLPs are mixtures.
    """
    heads = "num_attention_heads", "num_key_value_heads"
    return (*heads, "intermediate_size", family.experts, family.expert_width)


@dataclass(frozen=True)
class PackedModel:
    """A live model's blocks in layers."""

    model: PrunableModel
    dense: PretrainedConfig
    """The configuration of the dense model, with biases where the live one has them. Not to be
    changed."""
    layers: tuple[PackedLayer, ...]

    @classmethod
    def of(cls, model: PrunableModel, dense: PretrainedConfig) -> "PackedModel":
        """Pair the blocks of ``model``, whose dense configuration is ``dense``."""
        dense = _with_biases(dense, model)
        layers = list(_paired(model.blocks))
        if not layers or layers[0].attn is None:
            first = layers.pop(0) if layers else PackedLayer(None, None)
            layers.insert(0, first.with_block("attn", _zeros("attn", model, dense)))
        return cls(model, dense, tuple(layers))

    def padded(self, kinds: Collection[BlockKind], *, whole: bool) -> "PackedModel":
        """With blocks of these kinds as wide as the widest of them, by zeros; all the same.

        An MLP is as wide as the widest MLP, an expert as the widest expert.

        ``whole``: a layer that lost its block gets one of zeros, too. Raises ``StageError`` where
        the family's norms would notice.
        """
        layers = list(self.layers)
        for kind in kinds:
            blocks = [layer.block(kind) for layer in layers]
            if whole:
                blocks = [each or _zeros(kind, self.model, self.dense) for each in blocks]
            width_of: dict[bool, int] = {}
            for block in blocks:
                if block:
                    sort = block.block.is_mixture
                    width_of[sort] = max(width_of.get(sort, 0), block.width)
            reason = self.family.why_no_zeros if kind == "attn" else None
            for index, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
                if block is None:
                    continue
                width = width_of[block.block.is_mixture]
                inside = block.inside and max(each.inside or 0 for each in blocks if each)
                if block.block.is_mixture and layer.block(kind) and block.width < width:
                    raise StageError(f"export.pad: {NO_EMPTY_EXPERTS}")
                if reason and layer.block(kind) and block.width < width:
                    raise StageError(f"export.pad: {reason}")
                layers[index] = layer.with_block(kind, replace(block, width=width, inside=inside))
        return replace(self, layers=tuple(layers))

    @property
    def family(self) -> Family:
        """Where the family keeps what."""
        return self.model.family

    @property
    def architecture(self) -> str:
        """What transformers calls the family."""
        return stock_type(self.dense.model_type)

    @property
    def head_dim(self) -> int:
        """Channels of a head, the same in every layer."""
        return _heads(self.model, self.dense).head_dim

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are whole, and their blocks alike."""
        is_whole = all(layer.is_whole for layer in self.layers)
        sizes = zip(*(layer.widths for layer in self.layers), strict=True)
        return is_whole and all(len({size for size in of_all if size}) <= 1 for of_all in sizes)

    @cached_property
    def needs_code(self) -> bool:
        """Whether it is no ordinary model of the family.

        Its layers differ, or transformers refuses such a number of heads for all of them.
        """
        if not self.is_uniform or not _is_allowed(self._uniform_config()):
            return True
        width, hidden = self.widest.query * self.head_dim, self.family.hidden_size(self.dense)
        return self.family.heads_fill_hidden and width != hidden

    @property
    def opens_with(self) -> str:
        """The name of the class of transformers that opens it."""
        return CAUSAL if self.needs_code else opener_name(self.architecture)

    @property
    def widest(self) -> Widths:
        """The largest of each of ``PackedLayer.widths``."""
        of_layers = zip(*(layer.widths for layer in self.layers), strict=True)
        return Widths(*map(max, of_layers))

    def config(self) -> PretrainedConfig:
        """The configuration that says what each layer has.

        Of an ordinary model an ordinary one; of another with ``per_layer_config``.
        """
        if not self.needs_code:
            return self._uniform_config()
        config = self._config_of_layers()
        text = self.family.text(config)
        text.allow_global_per_layer_attribute_access = True
        names = _width_names(self.family)
        text.per_layer_config = {
            index: _overrides(layer, text, names) for index, layer in enumerate(self.layers)
        }
        return config

    def _uniform_config(self) -> PretrainedConfig:
        """With the widths that all layers have."""
        config = self._config_of_layers()
        for name, value in zip(_width_names(self.family), self.widest, strict=True):
            if value:
                setattr(self.family.text(config), name, value)
        return config

    def _config_of_layers(self) -> PretrainedConfig:
        """With what is the same for all layers, and what is listed by layer."""
        config = copy.deepcopy(self.dense)
        text = self.family.text(config)
        text.per_layer_config = None
        text.head_dim = self.head_dim
        text.num_hidden_layers = len(self.layers)
        for name, dense in self.family.listed(self.dense).items():
            setattr(text, name, self._listed(dense))
        for name in self.family.losses:
            setattr(text, name, False)
        plain = [i for i, layer in enumerate(self.layers) if layer.intermediate_size]
        self.family.place_mlps(text, plain)
        return config

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight once by its name; tied ones by the first name that they have."""
        prefix = f"{self.family.decoder}.{self.family.layers}."
        for name, tensor in stored(self.model.model).items():
            if not name.startswith(prefix):
                yield name, tensor
        for index, layer in enumerate(self.layers):
            for kind in BLOCK_KINDS:
                if block := layer.block(kind):
                    yield from ((f"{prefix}{index}.{name}", t) for name, t in block.weights)

    def published(self) -> Iterator[tuple[str, Tensor]]:
        """The same as files of the family have them: experts of an ordinary model one by one."""
        from transformers.core_model_loading import revert_weight_conversion

        for name, tensor in self.tensors():
            if self.needs_code or self.family.mixture is None:
                yield name, tensor
            else:
                yield from revert_weight_conversion(self.model.model, {name: tensor}).items()

    def _listed(self, dense: list[Any]) -> list[Any]:
        """Each attention's own entry; a layer without one has that of the layer before it."""
        own: list[Any] = []
        for layer in self.layers:
            own.append(dense[layer.attn.block.layer] if layer.attn else own[-1])
        return own


def _is_allowed(config: PretrainedConfig) -> bool:
    """Whether a configuration can be read from its file."""
    try:
        type(config).from_dict(config.to_dict())
    except (ValueError, StrictDataclassError):
        return False
    return True


def _paired(blocks: list[Block]) -> Iterator[PackedLayer]:
    waiting: PackedBlock | None = None
    for block in blocks:
        packed = PackedBlock.of(block)
        if block.kind == "mlp":
            yield PackedLayer(waiting, packed)
            waiting = None
            continue
        if waiting:
            yield PackedLayer(waiting, None)
        waiting = packed
    if waiting:
        yield PackedLayer(waiting, None)


def _with_biases(dense: PretrainedConfig, model: PrunableModel) -> PretrainedConfig:
    """A copy of the dense model's configuration, with the biases that the live one has."""
    config = copy.deepcopy(dense)
    for flag in model.family.bias_flags:
        setattr(model.family.text(config), flag, getattr(model.text_config, flag))
    return config


def _heads(model: PrunableModel, dense: PretrainedConfig) -> Heads:
    """The heads of the first attention that the dense model has."""
    described = model.family.describe(dense)
    return next(layer.attn.channels for layer in described if layer.attn)


def _zeros(kind: BlockKind, model: PrunableModel, dense: PretrainedConfig) -> PackedBlock:
    """The smallest block of a kind that the family has, which adds nothing to what passes it."""
    config, family = copy.deepcopy(dense), model.family
    text, heads = family.text(config), _heads(model, dense)
    text.per_layer_config = None
    text.head_dim, text.num_hidden_layers = heads.head_dim, 1
    kept = {barred.unit for barred in model.shape.barred}
    groups = heads.key_value_heads if "attn_width" in kept else 1
    text.num_attention_heads, text.num_key_value_heads = groups * heads.queries_per_key, groups
    if "mlp_width" not in kept:
        text.intermediate_size = 1
    if family.mixture:
        setattr(text, family.experts, text.num_experts_per_tok)
        setattr(text, family.expert_width, 1)
    family.place_mlps(text, (0,) if family.mixture is None or "mlp_width" not in kept else ())
    for name, of_layers in family.listed(dense).items():
        setattr(text, name, of_layers[:1])
    layer = model.layer_class(text, 0).to(model.model.dtype)
    description = family.describe(config)[0].block(kind)
    assert description
    for vector in description.layout.vectors:
        if vector.is_joint:  # not all families make them of the number of heads
            length = description.channels.segment_length(vector.segment, description.channels.width)
            owner, _, name = f"{description.layout.body}.{vector.name}".rpartition(".")
            weight = nn.Parameter(torch.ones(length, dtype=model.model.dtype))
            setattr(layer.get_submodule(owner), name, weight)
    block = Block(kind, 0, layer, description)
    for parameter in block.body.parameters():
        parameter.data.zero_()
    return PackedBlock.of(block)


def _overrides(layer: PackedLayer, text: Any, names: Sequence[str]) -> dict[str, Any]:
    """What ``per_layer_config`` has of a layer: what differs from the rest, and what is skipped."""
    skipped = [SKIP_NAMES[kind] for kind in BLOCK_KINDS if layer.block(kind) is None]
    differing = {
        name: value
        for name, value in zip(names, layer.widths, strict=True)
        if value and value != getattr(text, name)
    }
    return {**differing, **({"skip": skipped} if skipped else {})}
