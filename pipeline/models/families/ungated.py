"""Families whose MLPs have no gate: Arcee, Nemotron, Jais 2, Apertus, StarCoder 2, nanochat."""

from dataclasses import replace

from pipeline.models.families import llama
from pipeline.models.families.base import BlockLayout, Projection


def _ungated(up: str, down: str) -> BlockLayout:
    """Llama's MLP with these two projections alone."""
    projections = (Projection(up, rows=("channel",)), Projection(down, columns=("channel",)))
    return replace(llama.MLP, projections=projections)


UNGATED = _ungated("up_proj", "down_proj")
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
        mlp=_ungated("c_fc", "c_proj"),
        bias_flags=("use_bias",),
    ),
    replace(
        llama.WITHOUT_FLAGS,
        model_types=("nanochat",),
        mlp=_ungated("fc1", "fc2"),
    ),
)
