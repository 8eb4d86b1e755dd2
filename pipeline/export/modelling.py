"""The modelling file that goes with a model whose layers differ, and the same for this project."""

from functools import cache
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.models.families.base import Family

PREFIX = "pruned_"
"""Before the family's name in ``model_type``: no stock class may take the weights for its own."""
FILE = "modeling_pruned.py"


@cache
def _template() -> Template:
    path = resources.files("pipeline.export").joinpath(f"{FILE}.txt")
    return Template(path.read_text(encoding="utf-8"))


def source(family: "Family", model_type: str) -> str:
    """The modelling file of a family's pruned models."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    model = MODEL_MAPPING_NAMES[model_type]
    return _template().substitute(
        family=model_type,
        prefix=PREFIX,
        module=model_type,
        Config=_configuration(model_type),
        Model=model,
        Layer=f"{model.removesuffix('Model')}DecoderLayer",
        ForCausalLM=architecture(model_type),
        attn=family.attn.body,
        attn_norm=family.attn.norm_before,
        mlp=family.mlp.body,
        mlp_norm=family.mlp.norm_before,
    )


def names(model_type: str) -> dict[str, str]:
    """What ``auto_map`` says: which classes of the file stand for what."""
    module = FILE.removesuffix(".py")
    return {
        "AutoConfig": f"{module}.Pruned{_configuration(model_type)}",
        "AutoModelForCausalLM": f"{module}.Pruned{architecture(model_type)}",
    }


def architecture(model_type: str) -> str:
    """The name of a family's ordinary class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def _configuration(model_type: str) -> str:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return str(CONFIG_MAPPING_NAMES[model_type])
