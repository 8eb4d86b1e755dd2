"""Phi-3: fused projections, and an attention that cannot lose heads."""

from pipeline.models.families.base import BlockLayout, Family, Projection
from pipeline.pruning.shape import BarredUnit

FAMILY = Family(
    model_types=("phi3",),
    attn=BlockLayout(
        body="self_attn",
        norm_before="input_layernorm",
        projections=(
            Projection("qkv_proj", rows=("query", "key", "value")),
            Projection("o_proj", columns=("query",)),
        ),
    ),
    mlp=BlockLayout(
        body="mlp",
        norm_before="post_attention_layernorm",
        projections=(
            Projection("gate_up_proj", rows=("channel", "channel")),
            Projection("down_proj", columns=("channel",)),
        ),
    ),
    barred=(
        BarredUnit(
            "attn_width",
            "its attention reads the number of heads from the configuration, one for all layers",
        ),
    ),
)
