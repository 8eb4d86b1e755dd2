"""OLMo 2 and 3, and EXAONE 4: no norm before a block, one after it.

OLMo's queries and keys are normed over all heads at once. The norm is cut with its heads, and then
divides by what the heads that are left have: a model without a head is OLMo 2 with one head less,
not OLMo 2 with a head that is silent. Candidates are scored by the model that is really left, so
the scores know. What cannot be had is a head of zeros in the place of one that went, which would
change what the norm divides by: ``export.pad`` says so.
"""

from dataclasses import replace

from pipeline.models.families import llama
from pipeline.models.families.base import Vector

NORMS_OF_ALL_HEADS = (
    Vector("q_norm.weight", "query", is_joint=True),
    Vector("k_norm.weight", "key", is_joint=True),
)
AFTERWARDS = replace(
    llama.WITHOUT_FLAGS,
    model_types=("exaone4",),
    attn=replace(llama.ATTENTION, norm_before=None, norm_after="post_attention_layernorm"),
    mlp=replace(llama.MLP, norm_before=None, norm_after="post_feedforward_layernorm"),
)
FAMILIES = (
    AFTERWARDS,
    replace(
        AFTERWARDS,
        model_types=("olmo2", "olmo3"),
        attn=replace(
            AFTERWARDS.attn,
            vectors=NORMS_OF_ALL_HEADS,
        ),
    ),
)
