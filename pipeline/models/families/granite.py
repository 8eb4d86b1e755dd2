"""Granite and HyperCLOVA X: what a block adds, and the logits, are scaled.

The scales of embeddings and of attention are inside the models' own modules.
"""

from dataclasses import replace

from pipeline.models.families import llama
from pipeline.models.families.base import Vector

SCALED = replace(llama.FAMILY, residual_multiplier="residual_multiplier")
GRANITE = replace(SCALED, model_types=("granite",), logit_divisor="logits_scaling")
FAMILIES = (
    GRANITE,
    # each query head has a sink, which takes some of its attention
    replace(
        GRANITE,
        model_types=("granite_swa",),
        attn=replace(llama.ATTENTION, vectors=(Vector("sinks", "query_heads"),)),
        lists=("layer_types", "layer_rope_theta"),
        needs_eager="sinks",
    ),
    replace(
        SCALED,
        model_types=("hyperclovax",),
        attn=replace(llama.ATTENTION, norm_after="post_norm1"),
        mlp=replace(llama.MLP, norm_after="post_norm2"),
        logit_multiplier="logits_scaling",
    ),
)
