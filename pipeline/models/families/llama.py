"""Llama and the families that keep its modules."""

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

# Biases of q/k/v (Qwen2, Seed-OSS) travel with their rows. Norms of queries and keys (Qwen3,
# Hunyuan) are per head_dim, the same for all heads. What an attention is told of its layer when it
# is made (a sliding window, no rotary embeddings) stays with it wherever it moves; the lists that
# say so move along.
FAMILY = Family(
    ("llama", "internlm3", "iquestcoder"),
    ATTENTION,
    MLP,
    bias_flags=("attention_bias", "mlp_bias"),
)
WITHOUT_FLAGS = replace(
    FAMILY,
    model_types=(
        "mistral", "ministral", "ministral3", "qwen2", "qwen3", "gemma", "olmo", "cwm",
        "hunyuan_v1_dense",
    ),
    bias_flags=(),
)  # fmt: skip
FAMILIES = (
    FAMILY,
    WITHOUT_FLAGS,
    replace(
        FAMILY,
        model_types=("seed_oss",),
        bias_flags=("attention_bias", "attention_out_bias", "mlp_bias"),
    ),
    replace(FAMILY, model_types=("ernie4_5",), bias_flags=("use_bias",)),
    # Mistral Small and Ministral 3 with their towers for images, which are carried along
    replace(
        WITHOUT_FLAGS,
        model_types=("mistral3",),
        decoder="model.language_model",
        text_config="text_config",
    ),
    replace(FAMILY, model_types=("smollm3",), lists=("layer_types", "no_rope_layers")),
)
