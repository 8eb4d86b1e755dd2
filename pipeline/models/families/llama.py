"""Llama and the families that keep its modules: Mistral, Qwen2 and Qwen3."""

from dataclasses import replace

from pipeline.models.families.base import BlockLayout, Family, Projection

ATTENTION = BlockLayout(
    body="self_attn",
    norm_before="input_layernorm",
    projections=(
        Projection("q_proj", rows=("query",)),
        Projection("k_proj", rows=("key",)),
        Projection("v_proj", rows=("value",)),
        Projection("o_proj", columns=("query",)),
    ),
)
MLP = BlockLayout(
    body="mlp",
    norm_before="post_attention_layernorm",
    projections=(
        Projection("gate_proj", rows=("channel",)),
        Projection("up_proj", rows=("channel",)),
        Projection("down_proj", columns=("channel",)),
    ),
)

# Biases of q/k/v (Qwen2) travel with their rows; Qwen3's norms of queries and keys are per
# head_dim, the same for all heads.
FAMILY = Family(("llama",), ATTENTION, MLP, bias_flags=("attention_bias", "mlp_bias"))
FAMILIES = (FAMILY, replace(FAMILY, model_types=("mistral", "qwen2", "qwen3"), bias_flags=()))
