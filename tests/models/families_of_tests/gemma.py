"""Gemma 2 and 3: norms after the blocks; inside a checkpoint that also sees, a nested model."""

from dataclasses import replace

from pipeline.models.families import llama
from pipeline.models.families.base import Family

GEMMA2 = Family(
    model_types=("gemma2",),
    attn=replace(llama.ATTENTION, norm_after="post_attention_layernorm"),
    mlp=replace(
        llama.MLP,
        norm_before="pre_feedforward_layernorm",
        norm_after="post_feedforward_layernorm",
    ),
)
FAMILIES = (
    GEMMA2,
    replace(
        GEMMA2,
        model_types=("gemma3",),
        decoder="model.language_model",
        text_config="text_config",
    ),
)
