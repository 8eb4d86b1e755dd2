"""The modelling file that goes with a model whose layers differ, and the same for this project."""

import sys
from functools import cache
from importlib import resources
from string import Template
from types import ModuleType

from pipeline.models.families import PRUNED, family_of, stock_type
from pipeline.models.families.base import Family

FILE = "modeling_pruned.py"


@cache
def _template() -> Template:
    path = resources.files("pipeline.models").joinpath(f"{FILE}.txt")
    return Template(path.read_text(encoding="utf-8"))


def source(family: Family, model_type: str) -> str:
    """The modelling file of a family's pruned models."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    model = MODEL_MAPPING_NAMES[model_type]
    return _template().substitute(
        family=model_type,
        prefix=PRUNED,
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


def is_stock(model_type: str) -> bool:
    """Whether the family's modules are transformers' own, which build all layers alike."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return stock_type(model_type) in MODEL_MAPPING_NAMES


def make_known(model_type: str) -> None:
    """Let transformers open an exported model by the file of this package, not by the folder's."""
    if model_type != stock_type(model_type):
        _register(stock_type(model_type))


@cache
def _register(model_type: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    module = ModuleType(f"pipeline.models.pruned_{model_type}")
    sys.modules[module.__name__] = module  # transformers looks classes up by their module
    exec(source(family_of(model_type), model_type), module.__dict__)  # noqa: S102 - our own file
    classes = {
        auto: getattr(module, name.rpartition(".")[2]) for auto, name in names(model_type).items()
    }
    AutoConfig.register(PRUNED + model_type, classes["AutoConfig"])
    AutoModelForCausalLM.register(classes["AutoConfig"], classes["AutoModelForCausalLM"])
