"""A tiny configuration of every known family, with all its peculiarities switched on."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel

from pipeline.models.families import family_of
from pipeline.models.modelling import opener

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 60,
    "pad_token_id": None,
}
"""Two key/value heads, each with two query heads; heads wider than hidden / heads."""
WINDOW = 5
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
BIASES = {"attention_bias": True, "mlp_bias": True}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 8,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0],
    "original_max_position_embeddings": 8,
}  # fmt: skip
SLIDING = {"sliding_window": WINDOW, "layer_types": TYPES}
CAPPED = {"query_pre_attn_scalar": 20, "final_logit_softcapping": 3.0, "attention_bias": True}
SCALED = BIASES | {
    "residual_multiplier": 0.4, "embedding_multiplier": 3.0, "logits_scaling": 2.0,
    "attention_multiplier": 0.2,
}  # fmt: skip
BY_TYPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
GEMMA3 = CAPPED | SLIDING | {"rope_parameters": BY_TYPE}
PARTIAL = {"partial_rotary_factor": 0.5}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 24}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", BIASES | {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama_mha": ("llama", {"num_key_value_heads": 4, "head_dim": None}),
    "internlm3": ("internlm3", BIASES),
    "iquestcoder": ("iquestcoder", {}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "ministral": ("ministral", SLIDING),
    "ministral3": (
        "ministral3", {"rope_parameters": YARN | {"llama_4_scaling_beta": 0.3}}
    ),
    "mistral3": (
        "mistral3",
        {"model_type": "ministral3", "rope_parameters": YARN | {"llama_4_scaling_beta": 0.3}},
    ),
    "qwen2": (
        "qwen2", {"use_sliding_window": True, "tie_word_embeddings": True, **SLIDING}
    ),
    "qwen3": ("qwen3", {"attention_bias": True}),
    "phi3": ("phi3", PARTIAL | {"sliding_window": WINDOW}),
    "phi3_longrope": (
        "phi3",
        {"head_dim": None, "rope_parameters": LONGROPE, "original_max_position_embeddings": 8,
         "tie_word_embeddings": True},
    ),
    "gemma": ("gemma", {"attention_bias": True}),
    "gemma2": ("gemma2", CAPPED | SLIDING | {"attn_logit_softcapping": 2.0}),
    "gemma3_text": ("gemma3_text", GEMMA3),
    "gemma3": ("gemma3", GEMMA3),
    "vaultgemma": ("vaultgemma", CAPPED | SLIDING | {"attn_logit_softcapping": 2.0}),
    "olmo": ("olmo", {"clip_qkv": 0.5, "attention_bias": True}),
    "olmo2": ("olmo2", {"attention_bias": True}),
    "olmo3": (
        "olmo3",
        SLIDING | {"rope_parameters": BY_TYPE | {"full_attention": YARN}},
    ),
    "exaone4": ("exaone4", SLIDING),
    "granite": ("granite", SCALED | {"tie_word_embeddings": True}),
    "granite_swa": ("granite_swa", SCALED | SLIDING | {"layer_rope_theta": [100.0, 0, 10000.0]}),
    "hyperclovax": ("hyperclovax", SCALED),
    "hyperclovax_bare": ("hyperclovax", SCALED | {"use_post_norm": False}),
    "smollm3": (
        "smollm3",
        BIASES | {"no_rope_layers": [1, 0, 1], "use_sliding_window": True,
                  "sliding_window": WINDOW},
    ),
    "glm": ("glm", PARTIAL | {"attention_bias": True}),
    "glm4": ("glm4", PARTIAL | {"attention_bias": True}),
    "seed_oss": ("seed_oss", BIASES | {"attention_out_bias": True}),
    "ernie4_5": ("ernie4_5", {"use_bias": True}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"attention_bias": True}),
    "cwm": ("cwm", SLIDING),
    "arcee": ("arcee", BIASES),
    "nemotron": ("nemotron", BIASES | PARTIAL),
    "jais2": ("jais2", BIASES),
    "apertus": ("apertus", {"attention_bias": True}),
    "starcoder2": ("starcoder2", {"use_bias": True, "sliding_window": WINDOW}),
    "nanochat": ("nanochat", {"attention_bias": True, "final_logit_softcapping": 3.0}),
    "helium": ("helium", BIASES | {"head_dim": 8}),
    "stablelm": ("stablelm", {"head_dim": None, "use_qkv_bias": True}),
    "mixtral": ("mixtral", EXPERTS | {"sliding_window": WINDOW, "output_router_logits": True}),
    "olmoe": (
        "olmoe", EXPERTS | {"head_dim": None, "clip_qkv": 0.5, "attention_bias": True}
    ),
    "qwen3_moe": (
        "qwen3_moe",
        EXPERTS | {"moe_intermediate_size": 8, "norm_topk_prob": True, "mlp_only_layers": [1]},
    ),
    "qwen3_moe_step": (
        "qwen3_moe", EXPERTS | {"moe_intermediate_size": 8, "decoder_sparse_step": 2}
    ),
}  # fmt: skip
"""By a name: ``model_type``, and what differs from ``SIZES``."""
EAGER = {name for name, (model_type, _) in FAMILIES.items() if family_of(model_type).needs_eager}
"""Whose caps and sinks of attention no other kernel of a CPU knows."""


def tolerance(name: str) -> float:
    """In float64: norms round to float32 inside; so does the softmax of eager attention."""
    return 1e-5 if name in EAGER else 1e-6


VISION = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
    "image_size": 64, "patch_size": 16,
}  # fmt: skip
SEEING: dict[str, dict[str, Any]] = {
    "gemma3": {"vision_config": VISION, "mm_tokens_per_image": 4},
    "mistral3": {"vision_config": VISION | {"model_type": "pixtral", "head_dim": 8}},
}
"""What models have beside a language model."""


def config_of(name: str) -> PretrainedConfig:
    """A new configuration."""
    model_type, values = FAMILIES[name]
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    values = {key: value for key, value in (SIZES | copy.deepcopy(values)).items()
              if key != "head_dim" or value}  # fmt: skip
    if model_type in SEEING:
        values = {"text_config": values, "image_token_index": 60, **SEEING[model_type]}
    return CONFIG_MAPPING[model_type](**values)


def randomised(model: PreTrainedModel, scale: float = 0.2) -> PreTrainedModel:
    """Weights far from the usual small start: all of them random, biases and norms too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, scale, generator=generator)
    return model.eval().requires_grad_(False)


def kernels(name: str, dtype: torch.dtype) -> dict[str, str]:
    """Those that a CPU has for a family: torch multiplies groups of experts in float32 at most."""
    how = {"attn_implementation": "eager"} if name in EAGER else {}
    return how | ({"experts_implementation": "eager"} if dtype == torch.float64 else {})


@cache
def _built(name: str, dtype: torch.dtype) -> PreTrainedModel:
    config = config_of(name)
    return randomised(opener(config).from_config(config, dtype=dtype, **kernels(name, dtype)))


def stock(name: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A stock model of a family: the same one every time, and the caller's own."""
    return copy.deepcopy(_built(name, dtype))
