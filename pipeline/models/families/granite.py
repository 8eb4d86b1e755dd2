"""Granite and HyperCLOVA X: what a block adds, and the logits, are scaled.

The scales of embeddings and of attention are inside the models' own modules.
"""

from dataclasses import replace

from pipeline.models.families import llama

SCALED = replace(llama.FAMILY, residual_multiplier="residual_multiplier")
FAMILIES = (
    replace(SCALED, model_types=("granite",), logit_divisor="logits_scaling"),
    replace(
        SCALED,
        model_types=("hyperclovax",),
        attn=replace(llama.ATTENTION, norm_after="post_norm1"),
        mlp=replace(llama.MLP, norm_after="post_norm2"),
        logit_multiplier="logits_scaling",
    ),
)
