"""Mixtral, OLMoE and Qwen3-MoE: mixtures of experts in the place of MLPs.

All experts of a layer are one parameter with an entry for each, and so is the router. OLMoE's
queries and keys are normed over all heads at once, as those of OLMo 2.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pipeline.models.families import llama, olmo
from pipeline.models.families.base import BlockLayout, Family, HeadCount, Inside, Vector

EXPERTS = BlockLayout(
    body="mlp",
    norm_before="post_attention_layernorm",
    projections=(),
    vectors=(
        Vector("gate.weight", "route"),
        Vector("experts.gate_up_proj", "expert", inside=Inside(dim=1, runs=2)),
        Vector("experts.down_proj", "expert", is_output=True, inside=Inside(dim=2)),
    ),
    head_counts=(HeadCount("experts.num_experts", "expert"),),
)

LOSSES = ("output_router_logits",)


class Qwen3Moe(Family):
    """Some layers may have a plain MLP."""

    def is_mixture(self, config: Any, index: int) -> bool:
        """As ``mlp_only_layers`` and ``decoder_sparse_step`` say."""
        is_plain = index in (config.mlp_only_layers or ()) or not config.num_experts
        return not is_plain and (index + 1) % config.decoder_sparse_step == 0

    def place_mlps(self, config: Any, layers: Collection[int]) -> None:
        """Each layer by its number."""
        config.mlp_only_layers, config.decoder_sparse_step = sorted(layers), 1


FAMILIES = (
    replace(
        llama.WITHOUT_FLAGS,
        model_types=("mixtral",),
        mixture=EXPERTS,
        experts="num_local_experts",
        losses=LOSSES,
    ),
    replace(
        llama.WITHOUT_FLAGS,
        model_types=("olmoe",),
        attn=replace(llama.ATTENTION, vectors=olmo.NORMS_OF_ALL_HEADS),
        heads_fill_hidden=True,
        mixture=EXPERTS,
        losses=LOSSES,
    ),
    Qwen3Moe(
        model_types=("qwen3_moe",),
        attn=llama.ATTENTION,
        mlp=llama.MLP,
        mixture=EXPERTS,
        expert_width="moe_intermediate_size",
        losses=LOSSES,
    ),
)
