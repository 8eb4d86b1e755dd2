"""Phi-3 and Phi-4: fused projections, and an attention that asks how many heads it has."""

from pipeline.models.families.base import BlockLayout, Family, HeadCount, Projection

GATED_AT_ONCE = BlockLayout(
    body="mlp",
    norm_before="post_attention_layernorm",
    projections=(
        Projection("gate_up_proj", rows=("channel", "channel")),
        Projection("down_proj", columns=("channel",)),
    ),
)
FAMILY = Family(
    model_types=("phi3",),
    attn=BlockLayout(
        body="self_attn",
        norm_before="input_layernorm",
        projections=(
            Projection("qkv_proj", rows=("query", "key", "value")),
            Projection("o_proj", columns=("query",)),
        ),
        head_counts=(
            HeadCount("config.num_attention_heads", "query"),
            HeadCount("num_key_value_heads", "key"),
        ),
    ),
    mlp=GATED_AT_ONCE,
)
