"""A pruned model as layers again, for files that others open: names, widths and weights.

Blocks that are left are paired anew, each attention with the MLP that follows it, whatever layers
they came from: as many layers as that needs, and exact, since norms move with their blocks and
neither rotary embeddings nor masks depend on the layer. What the cache must know of an attention
(its type, e.g. a sliding window) moves with it.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from pipeline.models.blocks import Block
from pipeline.models.families.base import SKIP_NAMES, Family, Heads
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.shape import BLOCK_KINDS, BlockKind


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer: an attention and the MLP behind it; None where there is none."""

    attn: Block | None
    mlp: Block | None

    def block(self, kind: BlockKind) -> Block | None:
        """The layer's attention or MLP."""
        return self.attn if kind == "attn" else self.mlp

    @property
    def heads(self) -> tuple[int, int]:
        """Query heads and key/value heads; zeros without an attention."""
        if self.attn is None:
            return 0, 0
        channels, width = self.attn.channels, self.attn.width
        assert isinstance(channels, Heads)
        return width // channels.head_dim, width // channels.group_width

    @property
    def intermediate_size(self) -> int:
        """Channels of the MLP; 0 without one."""
        return self.mlp.width if self.mlp else 0

    @property
    def widths(self) -> tuple[int, int, int]:
        """Query heads, key/value heads, intermediate channels: equal for layers that are alike."""
        return (*self.heads, self.intermediate_size)


@dataclass(frozen=True)
class PackedModel:
    """A live model's blocks in layers."""

    model: PrunableModel
    dense: PretrainedConfig
    """The configuration of the dense model. Not to be changed."""
    layers: tuple[PackedLayer, ...]

    @classmethod
    def of(cls, model: PrunableModel, dense: PretrainedConfig) -> "PackedModel":
        """Pair the blocks of ``model``, whose dense configuration is ``dense``."""
        layers = list(_paired(model.blocks))
        if not layers or layers[0].attn is None:
            first = PackedLayer(_zero_attention(model, dense), layers[0].mlp if layers else None)
            layers = [first, *layers[1:]]
        return cls(model, dense, tuple(layers))

    @property
    def family(self) -> Family:
        """Where the family keeps what."""
        return self.model.family

    @property
    def head_dim(self) -> int:
        """Channels of a head; of every layer."""
        return next(
            heads.head_dim
            for layer in self.family.describe(self.dense)
            if layer.attn and isinstance(heads := layer.attn.channels, Heads)
        )

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are alike and whole: an ordinary model of the family."""
        return len({layer.widths for layer in self.layers}) == 1 and all(self.layers[0].widths)

    def config(self) -> PretrainedConfig:
        """The configuration that says what each layer has.

        Of a uniform model an ordinary one; of another with ``per_layer_config``.
        """
        config = copy.deepcopy(self.dense)
        text = self.family.text(config)
        text.per_layer_config = None
        text.head_dim = self.head_dim
        text.num_hidden_layers = len(self.layers)
        if getattr(text, "layer_types", None):
            text.layer_types = self._layer_types(text.layer_types)
        widest = [max(of_all) for of_all in zip(*(x.widths for x in self.layers), strict=True)]
        if self.is_uniform:
            for name, value in zip(WIDTHS, widest, strict=True):
                setattr(text, name, value)
            return config
        text.allow_global_per_layer_attribute_access = True
        text.per_layer_config = {
            index: _overrides(layer, text) for index, layer in enumerate(self.layers)
        }
        return config

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight once by its name; tied ones by the first name that they have."""
        family, model = self.family, self.model.model
        prefix = f"{family.decoder}.{family.layers}."
        for name, tensor in model.named_parameters():
            if not name.startswith(prefix):
                yield name, tensor
        for index, layer in enumerate(self.layers):
            for kind in BLOCK_KINDS:
                if block := layer.block(kind):
                    for name, tensor in named_weights(block):
                        yield f"{prefix}{index}.{name}", tensor

    def _layer_types(self, dense: list[str]) -> list[str]:
        """Each attention's own; a layer without one has that of the layer before it."""
        types: list[str] = []
        for layer in self.layers:
            types.append(dense[layer.attn.layer] if layer.attn else types[-1])
        return types


WIDTHS = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
"""What the configuration calls ``PackedLayer.widths``."""


def named_weights(block: Block) -> Iterator[tuple[str, Tensor]]:
    """A block's weights by their names inside a layer. Offloaded ones are brought."""
    if block.offloaded:
        block.offloaded.bring()
    layout = block.layout
    parts = [(layout.body, block.body), (layout.norm_before, block.norm_before)]
    if layout.norm_after:
        parts.append((layout.norm_after, block.norm_after))
    for name, module in parts:
        for inner, tensor in module.named_parameters():
            yield f"{name}.{inner}", tensor


def _paired(blocks: list[Block]) -> Iterator[PackedLayer]:
    waiting: Block | None = None
    for block in blocks:
        if block.kind == "attn":
            if waiting:
                yield PackedLayer(waiting, None)
            waiting = block
        else:
            yield PackedLayer(waiting, block)
            waiting = None
    if waiting:
        yield PackedLayer(waiting, None)


def _zero_attention(model: PrunableModel, dense: PretrainedConfig) -> Block:
    """The smallest attention of the family, which adds nothing to what passes it."""
    config = copy.deepcopy(dense)
    text, family = model.family.text(config), model.family
    heads = next(
        heads
        for layer in family.describe(dense)
        if layer.attn and isinstance(heads := layer.attn.channels, Heads)
    )
    text.per_layer_config = None
    text.head_dim, text.num_hidden_layers, text.vocab_size = heads.head_dim, 1, 1
    text.num_attention_heads, text.num_key_value_heads = heads.queries_per_key, 1
    text.pad_token_id = None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    tiny = AutoModelForCausalLM.from_config(config, dtype=model.model.dtype)
    (layer,) = tiny.get_submodule(family.decoder).get_submodule(family.layers)
    description = family.describe(config)[0].attn
    assert description
    block = Block("attn", 0, layer, description)
    for parameter in block.body.parameters():
        parameter.data.zero_()
    return block


def _overrides(layer: PackedLayer, text: Any) -> dict[str, Any]:
    """What ``per_layer_config`` has of a layer: what differs from the rest, and what is skipped."""
    skipped = [SKIP_NAMES[kind] for kind in BLOCK_KINDS if layer.block(kind) is None]
    differing = {
        name: value
        for name, value in zip(WIDTHS, layer.widths, strict=True)
        if value and value != getattr(text, name)
    }
    return {**differing, **({"skip": skipped} if skipped else {})}
