"""The modelling file that goes with a model whose layers differ, and the same for this project."""

import sys
from functools import cache
from string import Template
from types import ModuleType
from typing import Any

PREFIX = "pruned_"
"""Before the family's name in ``model_type``: no stock class may take the weights for its own."""
FILE = "modeling_pruned.py"

TEXT = Template('''"""A pruned $family model: blocks are gone, and MLPs and attentions differ from layer to layer.

`per_layer_config` in config.json says what each layer has; all else is transformers' own $family.
Written by MultiPruner's pipeline.
"""

from contextlib import contextmanager

import torch
from torch import nn
from transformers import $Config
from transformers.models.$module.modeling_$module import $Layer, $Model, $ForCausalLM


class Pruned$Config($Config):
    """$Config of a model whose layers differ."""

    model_type = "$prefix$family"


class GoneAttn(nn.Module):
    """Stands where a layer lost its attention."""

    def forward(self, hidden_states, **_):
        return torch.zeros_like(hidden_states), None


class GoneMLP(nn.Module):
    """Stands where a layer lost its MLP."""

    def forward(self, hidden_states):
        return torch.zeros_like(hidden_states)


@contextmanager
def without_layers(config):
    """The configuration of the same model with no layer yet, for constructors that know one kind."""
    differences, count = config.__dict__.pop("_heterogeneity_spec"), config.num_hidden_layers
    config.num_hidden_layers = 0
    try:
        yield
    finally:
        config.num_hidden_layers = count
        config._heterogeneity_spec = differences


def layers_of(config):
    """Every layer as wide as the configuration says."""
    for index, own in enumerate(config.per_layer_config):
        skipped = getattr(own, "skip", None) or ()
        layer = $Layer(own, index)
        if "attention" in skipped:
            layer.$attn, layer.$attn_norm = GoneAttn(), nn.Identity()
        else:
            layer.$attn.config = config  # what is said later of the kernel holds here, too
        if "mlp" in skipped:
            layer.$mlp, layer.$mlp_norm = GoneMLP(), nn.Identity()
        yield layer


class Pruned$Model($Model):
    """$Model with layers that differ."""

    config_class = Pruned$Config

    def __init__(self, config):
        with without_layers(config):
            super().__init__(config)
        self.layers = nn.ModuleList(layers_of(config))
        self.post_init()


class Pruned$ForCausalLM($ForCausalLM):
    """$ForCausalLM with layers that differ."""

    config_class = Pruned$Config

    def __init__(self, config):
        with without_layers(config):
            super().__init__(config)
        self.model = Pruned$Model(config)
        self.post_init()
''')


def source(family: "Family", model_type: str) -> str:
    """The modelling file of a family's pruned models."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_MAPPING_NAMES,
    )

    model = MODEL_MAPPING_NAMES[model_type]
    return TEXT.substitute(
        family=model_type,
        prefix=PREFIX,
        module=model_type,
        Config=CONFIG_MAPPING_NAMES[model_type],
        Model=model,
        Layer=f"{model.removesuffix('Model')}DecoderLayer",
        ForCausalLM=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type],
        decoder=family.decoder,
        attn=family.attn.body,
        attn_norm=family.attn.norm_before,
        mlp=family.mlp.body,
        mlp_norm=family.mlp.norm_before,
    )


def names(model_type: str) -> dict[str, str]:
    """What ``auto_map`` says: which classes of the file stand for what."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    module = FILE.removesuffix(".py")
    return {
        "AutoConfig": f"{module}.Pruned{CONFIG_MAPPING_NAMES[model_type]}",
        "AutoModelForCausalLM": f"{module}.Pruned{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]}",
    }
