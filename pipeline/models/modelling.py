"""The modelling file that goes with a model whose layers differ, and the same for this project."""

import json
import sys
from functools import cache
from importlib import resources
from string import Template
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.models.families import PRUNED, family_of, stock_type
from pipeline.models.families.base import Family

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CAUSAL = "AutoModelForCausalLM"
"""The class by which most models are opened, and all that have a file of code."""
FILE = "modeling_pruned.py"


@cache
def _template() -> Template:
    path = resources.files("pipeline.models").joinpath(f"{FILE}.txt")
    return Template(path.read_text(encoding="utf-8"))


def source(family: Family, model_type: str) -> str:
    """The modelling file of a family's pruned models."""
    config, model = _classes(model_type)
    return _template().substitute(
        family=model_type,
        prefix=PRUNED,
        Config=config.__name__,
        ForCausalLM=model.__name__,
        text=f".{family.text_config}" if family.text_config else "",
        decoder=family.decoder,
        layers=family.layers,
        attn=family.attn.body,
        attn_norms=json.dumps(family.attn.norms),
        joint=json.dumps(family.joint_norms),
        mlp=family.mlp.body,
        mlp_norms=json.dumps(family.mlp.norms),
    )


def opener(config: "PretrainedConfig") -> Any:
    """The class by which transformers opens such models: not all that see are causal ones."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    is_causal = type(config) in AutoModelForCausalLM._model_mapping
    return AutoModelForCausalLM if is_causal else AutoModelForImageTextToText


def opener_name(model_type: str) -> str:
    """What the class is called by which transformers opens a family's ordinary models."""
    return str(opener(_classes(model_type)[0]()).__name__)


def _classes(model_type: str) -> tuple[type, Any]:
    """A family's configuration and its language model."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type]
    return config, opener(config())._model_mapping[config]


def names(model_type: str) -> dict[str, str]:
    """What ``auto_map`` says: which classes of the file stand for what."""
    module, (config, model) = FILE.removesuffix(".py"), _classes(model_type)
    return {
        "AutoConfig": f"{module}.Pruned{config.__name__}",
        CAUSAL: f"{module}.Pruned{model.__name__}",
    }


def architecture(model_type: str) -> str:
    """The name of a family's ordinary class."""
    return str(_classes(model_type)[1].__name__)


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
