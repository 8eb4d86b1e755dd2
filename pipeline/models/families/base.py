"""How a family of models is described: its modules by name, and its layers one by one.

A family is a file in this folder that has ``FAMILY``, or ``FAMILIES`` for several. Most are an
instance of ``Family``: a fused projection lists its segments in order, e.g.
``Projection("qkv_proj", rows=("query", "key", "value"))``; a family that normalises a block's
output names that norm in ``norm_after``; one whose language model has a configuration of its own
inside the checkpoint's names it in ``text_config``. What cannot be removed stands in ``barred``. A
family that states its widths in another way subclasses ``Family`` and overrides ``layer``.
docs/families.md walks through one.

No torch here: planning asks for families.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pipeline.errors import ConfigError
from pipeline.pruning.shape import BarredUnit, BlockKind

Segment = Literal["query", "key", "value", "query_heads", "channel", "expert", "route"]
"""What a run of rows or columns belongs to; ``query_heads`` has one entry for each head. All of an
attention are cut by key/value heads. Of a mixture ``expert`` has an entry for each expert, which is
its weights, and ``route`` what the router has for it."""
CACHED: tuple[Segment, ...] = ("key", "value")
"""What an attention keeps of every token."""

SKIP_NAMES: Mapping[BlockKind, str] = {"attn": "attention", "mlp": "mlp"}
"""How ``skip`` of transformers' per-layer configurations calls a block that is not there."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer of a block, and the segments of its output rows or input columns."""

    name: str
    rows: tuple[Segment, ...] = ()
    columns: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Inside:
    """Where a parameter of the experts of a mixture has their intermediate channels."""

    dim: int
    """The dimension; the first one has the experts."""
    runs: int = 1
    """How often it has all of them, one run after the other: gate and up are two."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A parameter of the body that no linear layer has, cut along its first dimension.

    E.g. the weight of a norm over all heads, or the experts of a mixture.
    """

    name: str
    segment: Segment
    is_joint: bool = False
    """Whether what it is for depends on all of the segment at once: zeros in the place of heads
    that went would change what a norm divides by."""
    is_output: bool = False
    """Whether what the block adds is a product with it, where no projection has ``columns``."""
    inside: Inside | None = None
    """Where the channels of each expert are."""


@dataclass(frozen=True, slots=True)
class HeadCount:
    """A number of heads or of experts that the forward pass of a block reads.

    ``name`` is an attribute of the block's body, or of its configuration: ``config.NAME``.
    """

    name: str
    segment: Segment


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """One residual block of a decoder layer: ``x + norm_after(body(norm_before(x)))``.

    Names are those of the modules in the layer, those of projections and vectors inside the body.
    """

    body: str
    norm_before: str | None
    projections: tuple[Projection, ...]
    norm_after: str | None = None
    vectors: tuple[Vector, ...] = ()
    head_counts: tuple[HeadCount, ...] = ()

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that go with the block."""
        return tuple(name for name in (self.norm_before, self.norm_after) if name)


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of a dense attention; they decide how many key rows a query width keeps."""

    query_heads: int
    key_value_heads: int
    head_dim: int

    @property
    def queries_per_key(self) -> int:
        """Query heads that share one key/value head."""
        return self.query_heads // self.key_value_heads

    @property
    def width(self) -> int:
        """Query channels."""
        return self.query_heads * self.head_dim

    @property
    def group_width(self) -> int:
        """Query channels that belong to one key/value head."""
        return self.queries_per_key * self.head_dim

    def segment_length(self, segment: Segment, width: int) -> int:
        """Rows (or columns) that a segment has in a block of ``width`` query channels."""
        if segment == "query_heads":
            return width // self.head_dim
        return width // self.group_width * self.head_dim if segment in ("key", "value") else width

    def count(self, segment: Segment, width: int) -> int:
        """Heads that a segment has in a block of ``width`` query channels."""
        return self.segment_length(segment, width) // self.head_dim

    def uses(self, segment: Segment) -> int:
        """How many query heads use each row of a segment."""
        return self.queries_per_key if segment in ("key", "value") else 1


class _OneByOne:
    """Pieces of a block each of which has one entry in every segment."""

    __slots__ = ()

    def segment_length(self, _segment: Segment, width: int) -> int:
        """Entries that a segment has in a block of ``width`` pieces."""
        return width

    def count(self, _segment: Segment, width: int) -> int:
        """Pieces of a block of ``width`` pieces."""
        return width

    def uses(self, _segment: Segment) -> int:
        """What belongs to a piece belongs to it alone."""
        return 1


@dataclass(frozen=True, slots=True)
class Channels(_OneByOne):
    """The intermediate channels of a dense MLP."""

    width: int
    group_width: int = 1


@dataclass(frozen=True, slots=True)
class Experts(_OneByOne):
    """The experts of a mixture."""

    width: int
    """How many there are."""
    experts_per_token: int
    """How many of them the router takes for each token."""
    expert_width: int
    """Intermediate channels of each."""
    hidden_size: int
    """Channels of the hidden states."""
    group_width: int = 1

    def working_width(self, inside: int) -> int:
        """Channels that a token takes while it passes experts of ``inside`` channels.

        Of each of its experts these, and as many as hidden states have.
        """
        return self.experts_per_token * (inside + self.hidden_size)


AnyChannels = Heads | Channels | Experts
"""What the width of a block counts."""
ChannelsT = TypeVar("ChannelsT", Heads, Channels, Experts)


@dataclass(frozen=True, slots=True)
class BlockDescription(Generic[ChannelsT]):
    """One block of one layer: where its modules are, and what its channels belong to."""

    layout: BlockLayout
    channels: ChannelsT
    multiplier: float = 1.0
    """What is added to the hidden states is multiplied by it."""


AnyDescription = BlockDescription[Heads] | BlockDescription[Channels] | BlockDescription[Experts]


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """One decoder layer. A block that the layer does not have is None."""

    attn: BlockDescription[Heads] | None
    mlp: BlockDescription[Channels] | BlockDescription[Experts] | None

    def block(self, kind: BlockKind) -> AnyDescription | None:
        """The layer's attention or MLP."""
        return self.attn if kind == "attn" else self.mlp


@dataclass(frozen=True)
class Family:
    """How the causal language models of some ``model_type`` values are put together.

    ``config`` in the methods is the Hugging Face configuration of the whole checkpoint.
    """

    model_types: tuple[str, ...]
    attn: BlockLayout
    mlp: BlockLayout
    decoder: str = "model"
    """The module that embeds tokens and calls the layers."""
    layers: str = "layers"
    """The list of layers, inside the decoder."""
    final_norm: str = "norm"
    """The norm before the head, inside the decoder."""
    head: str = "lm_head"
    text_config: str | None = None
    """The attribute of the configuration that holds the language model's own; None: it is one."""
    lists: tuple[str, ...] = ("layer_types",)
    """Values of the configuration that have an entry for each layer's attention."""
    residual_multiplier: str | None = None
    """The value of the configuration that what each block adds is multiplied by."""
    logit_multiplier: str | None = None
    """The one that logits are multiplied by."""
    logit_divisor: str | None = None
    """The one that logits are divided by."""
    logit_cap: str | None = "final_logit_softcapping"
    """The one that logits are soft-capped to, where it is there and not null."""
    needs_eager: str | None = None
    """What of its attention only ``model.attn_implementation=eager`` computes; None: nothing."""
    barred: tuple[BarredUnit, ...] = ()
    """What these models cannot lose, and why."""
    bias_flags: tuple[str, ...] = ()
    """Values of the configuration that, where true, give every linear layer of the blocks a bias;
    none where the family has no bias in the layers that give what a block adds."""
    heads_fill_hidden: bool = False
    """Whether transformers' own models have as many query channels as hidden states have, always:
    others of its norms over all heads it cannot make."""
    mixture: BlockLayout | None = None
    """The mixture of experts in the place of an MLP; ``is_mixture`` says in which layers. None:
    there are no mixtures."""
    experts: str = "num_experts"
    """The value of the configuration that says how many experts a mixture has."""
    expert_width: str = "intermediate_size"
    """The one that says how many channels an expert has."""
    losses: tuple[str, ...] = ()
    """Those that have training losses computed with whatever is asked of the model: turned off."""

    def layout(self, kind: BlockKind) -> BlockLayout:
        """Where the modules of an attention or MLP are."""
        return self.attn if kind == "attn" else self.mlp

    @property
    def joint_norms(self) -> dict[str, str]:
        """The norms over all heads at once, with the projections whose output they norm."""
        projections = {each.rows: each.name for each in self.attn.projections}
        return {
            vector.name.partition(".")[0]: projections[vector.segment,]
            for vector in self.attn.vectors
            if vector.is_joint
        }

    @property
    def why_no_zeros(self) -> str | None:
        """Why no heads of zeros can stand where heads went, in words; None where they can."""
        joint = self.joint_norms
        if not joint:
            return None
        return (
            f"{' and '.join(joint)} of these models norm all heads at once, which heads of zeros "
            "in the place of those that went would change; leave export.pad out: export=hf writes "
            "layers of any width"
        )

    def text(self, config: Any) -> Any:
        """The configuration of the language model."""
        return getattr(config, self.text_config) if self.text_config else config

    def describe(self, config: Any) -> tuple[LayerDescription, ...]:
        """Every layer, from the input to the output.

        Raises ``ConfigError`` for a configuration that no such model can have.
        """
        text = self.text(config)
        own = getattr(text, "is_heterogeneous", False)
        return tuple(
            self.layer(text.per_layer_config[index] if own else text, index)
            for index in range(text.num_hidden_layers)
        )

    def layer(self, config: Any, index: int) -> LayerDescription:
        """One layer; ``config`` is the language model's configuration as it is for this layer."""
        skipped = getattr(config, "skip", None) or ()
        multiplier = getattr(config, self.residual_multiplier) if self.residual_multiplier else 1.0
        attn = mlp = None
        if SKIP_NAMES["attn"] not in skipped:
            attn = BlockDescription(self.attn, heads_of(config), multiplier)
        if SKIP_NAMES["mlp"] not in skipped:
            mlp = self._mlp(config, index, multiplier)
        return LayerDescription(attn, mlp)

    def _mlp(
        self, config: Any, index: int, multiplier: float
    ) -> BlockDescription[Channels] | BlockDescription[Experts]:
        if self.mixture and self.is_mixture(config, index):
            return BlockDescription(self.mixture, self._experts_of(config), multiplier)
        return BlockDescription(self.mlp, Channels(config.intermediate_size), multiplier)

    def is_mixture(self, config: Any, index: int) -> bool:  # noqa: ARG002
        """Whether the MLP of a layer is a mixture; ``config`` as in ``layer``."""
        return self.mixture is not None

    def place_mlps(self, config: Any, layers: Collection[int]) -> None:  # noqa: ARG002
        """Let the language model's ``config`` say that the MLPs of these layers are no mixtures."""
        assert not layers or self.mixture is None

    def _experts_of(self, config: Any) -> Experts:
        count, chosen = getattr(config, self.experts), config.num_experts_per_tok
        if not 1 <= chosen <= count:
            raise ConfigError(
                [
                    f"model.path: num_experts_per_tok is {chosen}; allowed is a number from 1 to "
                    f"{count}, which is how many experts a layer has"
                ]
            )
        return Experts(count, chosen, getattr(config, self.expert_width), config.hidden_size)

    def hidden_size(self, config: Any) -> int:
        """Width of the hidden states."""
        return int(self.text(config).hidden_size)

    def vocabulary_size(self, config: Any) -> int:
        """Number of token ids; the ids run from 0."""
        return int(self.text(config).vocab_size)

    def context_length(self, config: Any) -> int | None:
        """Most tokens that a sequence may have; None where the configuration does not say."""
        length: int | None = getattr(self.text(config), "max_position_embeddings", None)
        return length

    def listed(self, config: Any) -> dict[str, list[Any]]:
        """What ``lists`` names and the configuration has, each with an entry for each layer."""
        text = self.text(config)
        return {name: list(given) for name in self.lists if (given := getattr(text, name, None))}

    def logit_scale(self, config: Any) -> float:
        """What the head's output is multiplied by."""
        text, scale = self.text(config), 1.0
        if self.logit_multiplier:
            scale *= getattr(text, self.logit_multiplier)
        if self.logit_divisor:
            scale /= getattr(text, self.logit_divisor)
        return scale

    def cap_of_logits(self, config: Any) -> float | None:
        """What the logits are soft-capped to; None where they are not."""
        cap: float | None = getattr(self.text(config), self.logit_cap or "", None)
        return cap


def heads_of(config: Any) -> Heads:
    """The attention heads that a layer's configuration states."""
    query, key_value = config.num_attention_heads, config.num_key_value_heads
    if query < 1 or key_value < 1 or query % key_value:
        raise ConfigError(
            [
                f"model.path: {query} attention heads on {key_value} key/value heads do not go; "
                "the first must be a multiple of the second"
            ]
        )
    return Heads(query, key_value, getattr(config, "head_dim", None) or config.hidden_size // query)
