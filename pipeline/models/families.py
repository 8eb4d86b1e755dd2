"""Where each model family keeps its attention, its MLP and their projections.

To add a family, describe it here; nothing else in the project names a projection. A fused
projection lists its segments in order: ``Projection("qkv_proj", rows=("query", "key", "value"))``;
a family that normalises a block's output names that norm in ``norm_after``. A module that takes
widths from the model's configuration when it runs (Phi-3's attention) can lose whole blocks and MLP
channels; to lose heads it has to read the shapes of its own weights.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError

Segment = Literal["query", "key", "value", "channel"]
"""What a run of rows or columns belongs to. All but channels are cut by key/value heads."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer of a block, and the segments of its output rows or input columns."""

    name: str
    rows: tuple[Segment, ...] = ()
    columns: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """One residual block of a decoder layer: ``x + norm_after(body(norm_before(x)))``."""

    body: str
    norm_before: str
    projections: tuple[Projection, ...]
    norm_after: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """How a Hugging Face causal language model of one ``model_type`` is put together."""

    attn: BlockLayout
    mlp: BlockLayout
    decoder: str = "model"
    layers: str = "layers"
    final_norm: str = "norm"
    head: str = "lm_head"


LLAMA = Family(
    attn=BlockLayout(
        body="self_attn",
        norm_before="input_layernorm",
        projections=(
            Projection("q_proj", rows=("query",)),
            Projection("k_proj", rows=("key",)),
            Projection("v_proj", rows=("value",)),
            Projection("o_proj", columns=("query",)),
        ),
    ),
    mlp=BlockLayout(
        body="mlp",
        norm_before="post_attention_layernorm",
        projections=(
            Projection("gate_proj", rows=("channel",)),
            Projection("up_proj", rows=("channel",)),
            Projection("down_proj", columns=("channel",)),
        ),
    ),
)

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,  # biases of q/k/v travel with their rows
    "qwen3": LLAMA,  # norms of queries and keys are per head_dim, shared by all heads
}


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face ``model_type``; ``ConfigError`` lists the known ones."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise ConfigError(
            [f"model.path: its architecture is {model_type!r}; known architectures: {known}"]
        ) from None
