"""Families whose MLPs have no gate: Arcee, Nemotron, Jais 2, Apertus, StarCoder 2, nanochat."""

from dataclasses import replace

from pipeline.models.families import llama
from pipeline.models.families.base import Projection

UNGATED = replace(llama.MLP, projections=llama.MLP.projections[1:])
FAMILIES = (
    replace(llama.FAMILY, model_types=("arcee", "nemotron", "jais2"), mlp=UNGATED),
    # Apertus' activation has parameters, of the MLP as a whole: they stay as they are
    replace(
        llama.WITHOUT_FLAGS,
        model_types=("apertus",),
        attn=replace(llama.ATTENTION, norm_before="attention_layernorm"),
        mlp=replace(UNGATED, norm_before="feedforward_layernorm"),
    ),
    replace(
        llama.FAMILY,
        model_types=("starcoder2",),
        mlp=replace(
            UNGATED,
            projections=(
                Projection("c_fc", rows=("channel",)),
                Projection("c_proj", columns=("channel",)),
            ),
        ),
        bias_flags=("use_bias",),
    ),
    replace(
        llama.WITHOUT_FLAGS,
        model_types=("nanochat",),
        mlp=replace(
            UNGATED,
            projections=(
                Projection("fc1", rows=("channel",)),
                Projection("fc2", columns=("channel",)),
            ),
        ),
    ),
)
