"""Helium and StableLM: Llama's names, and an output layer that is as wide as the hidden states.

transformers makes that layer of an attention with ``hidden_size`` inputs however many heads there
are: with fewer heads it could be cut, but no layer of that size could be made when it is opened.
"""

from dataclasses import replace
from typing import Any

from pipeline.errors import ConfigError
from pipeline.models.families import llama
from pipeline.models.families.base import Family, LayerDescription
from pipeline.pruning.shape import BarredUnit

ALL_HEADS = (BarredUnit("attn_width", "its output layer is as wide as the hidden states"),)
"""What neither family can lose."""


class StableLM(Family):
    """Whose configurations may ask for blocks that are not those described."""

    def layer(self, config: Any, index: int) -> LayerDescription:
        """One layer; ``ConfigError`` where its parts are not there, or not one after the other."""
        refused = {
            "use_parallel_residual": "attention and MLP of such a model run side by side, and "
            "neither is a block of its own",
            "qk_layernorm": "such a model has norms for each head, which do not move with it when "
            "heads are put in order",
        }
        for flag, reason in refused.items():
            if getattr(config, flag):
                raise ConfigError([f"model.path: its configuration has {flag}: {reason}"])
        return super().layer(config, index)


# Biases: neither has any in the output layer of attentions, so no flag gives all layers one.
FAMILIES = (
    replace(llama.WITHOUT_FLAGS, model_types=("helium",), barred=ALL_HEADS),
    StableLM(("stablelm",), llama.ATTENTION, llama.MLP, barred=ALL_HEADS),
)
