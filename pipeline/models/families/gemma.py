"""Gemma 2 and 3: norms before and after every block.

Norms that multiply by 1 + w, the scale of embeddings and the caps of attention are inside the
models' own modules. Attentions with and without a sliding window get other rotary embeddings in
Gemma 3: the model goes by ``layer_types``, which move with their attentions. A multimodal
checkpoint's images are seen by a tower that is carried along as it is.
"""

from dataclasses import replace

from pipeline.models.families import llama
from pipeline.models.families.base import Family

GEMMA = Family(
    model_types=("gemma3_text",),
    attn=replace(llama.ATTENTION, norm_after="post_attention_layernorm"),
    mlp=replace(
        llama.MLP,
        norm_before="pre_feedforward_layernorm",
        norm_after="post_feedforward_layernorm",
    ),
)
FAMILIES = (
    GEMMA,
    replace(GEMMA, model_types=("gemma2",), needs_eager="soft caps"),
    replace(
        GEMMA,
        model_types=("gemma3",),
        decoder="model.language_model",
        text_config="text_config",
        logit_cap=None,  # the multimodal model does not cap what its text model would
    ),
    replace(
        llama.WITHOUT_FLAGS,
        model_types=("vaultgemma",),
        mlp=replace(llama.MLP, norm_before="pre_feedforward_layernorm"),
        needs_eager="soft caps",
    ),
)
