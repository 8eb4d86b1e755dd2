"""What keeps a model from being pruned: said at once, with what would do. Reads no weights."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import Json
from pipeline.given import read_object
from pipeline.models.families import FAMILIES, stock_type

EXPERTS = re.compile(r"(num|n_routed|num_local)_experts|moe_num_experts|ffn_config")
STATES = re.compile(
    r"mamba_.*|ssm_.*|state_size|lru_width|conv_L_cache|linear_num_key_heads|attention_hidden_size"
)
"""Values of a configuration by which models are known that keep a state in place of a cache."""
BLOCKS_ALONE = (
    "docs/families.md walks through describing a family, and with blocks alone, that is with "
    "channels and heads barred, it is a few lines"
)


def unknown_architecture(model_type: str, values: Mapping[str, Json]) -> str | None:
    """Why models of a ``model_type`` cannot be pruned, in a sentence; None where they can.

    ``values`` is what the model's configuration says.
    """
    if stock_type(model_type) in FAMILIES:
        return None
    known = ", ".join(sorted(FAMILIES))
    kind = _kind(model_type, values)
    return f"its architecture is {model_type!r}, {kind}. Known architectures: {known}"


def _kind(model_type: str, values: Mapping[str, Json]) -> str:
    """What kind of model it is, and what to do about it, as a clause."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING_NAMES:
        where = (
            "code of its own, which is never run here"
            if values.get("auto_map")
            else "a newer transformers may: pip install --upgrade transformers; docs/families.md "
            "tells how a family is described"
        )
        return f"which the installed transformers {transformers.__version__} does not know; {where}"
    stated = _stated(model_type, values)
    writes = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    states, experts = _named(STATES, stated), _named(EXPERTS, stated)
    mixtures = [name for name, family in FAMILIES.items() if family.mixture]
    kinds = (
        (
            bool(stated.get("is_encoder_decoder")),
            "an encoder with a decoder: only models that are a decoder alone can be pruned; take "
            "such a model",
        ),
        (
            not writes and "text_config" in stated,
            "several models in one, of which transformers opens none for text alone; give the "
            "language model as a checkpoint of its own",
        ),
        (
            not writes or stated.get("is_decoder") is False,
            "no language model that writes text: perplexity cannot be measured on it; take a model "
            "that is a decoder alone",
        ),
        (
            states,
            f"whose layers keep a state ({', '.join(states[:1])}): such layers are not described "
            "here yet, those with attention and MLP are; docs/families.md says what can be said",
        ),
        (
            experts,
            f"a mixture of experts ({', '.join(experts[:1])}) that is not described here yet, as "
            f"{', '.join(sorted(mixtures))} are; {BLOCKS_ALONE}",
        ),
    )
    other = f"which is not described here yet; {BLOCKS_ALONE}"
    return next((text for holds, text in kinds if holds), other)


def _stated(model_type: str, values: Mapping[str, Json]) -> dict[str, Any]:
    """What a configuration says, its own or by default; of one inside it, too."""
    from transformers import CONFIG_MAPPING

    try:
        stated = CONFIG_MAPPING[model_type]().to_dict() | dict(values)
    except Exception:  # noqa: BLE001 - some have no defaults, or need other packages
        stated = dict(values)
    nested = stated.get("text_config")
    return {**stated, **(nested if isinstance(nested, Mapping) else {})}


def _named(pattern: re.Pattern[str], stated: Mapping[str, Any]) -> list[str]:
    return [name for name, value in stated.items() if value and pattern.fullmatch(name)]


ADAPTER = "adapter_config.json"
QUANTISED = ("quantization_config", "compression_config")
OPENED_WHOLE: dict[str, str] = {
    "bitsandbytes": "M.from_pretrained('{folder}').dequantize().save_pretrained('WHOLE')",
    "fp8": "M.from_pretrained('{folder}', quantization_config="
    "transformers.FineGrainedFP8Config(dequantize=True)).save_pretrained('WHOLE')",
    "mxfp4": "M.from_pretrained('{folder}', quantization_config="
    "transformers.Mxfp4Config(dequantize=True)).save_pretrained('WHOLE')",
    "compressed-tensors": "M.from_pretrained('{folder}', quantization_config="
    "transformers.CompressedTensorsConfig(dequantize=True)).save_pretrained('WHOLE')",
}
"""By the method, how transformers writes a model whose weights are numbers again."""
PYTHON = 'python -c "import transformers; M = transformers.AutoModelForCausalLM; {what}"'
PICKLES = ("pytorch_model*.bin", "*.pth", "*.pt", "consolidated*.pth", "model*.ckpt")


def quantised(key: str, given: Json, folder: Path) -> str:
    """What a configuration says of quantised weights under ``key``, and what to type."""
    method = given.get("quant_method") if isinstance(given, Mapping) else None
    if (
        method is None
        and isinstance(given, Mapping)
        and {"load_in_4bit", "load_in_8bit"} & set(given)
    ):
        method = "bitsandbytes"
    how = f" ({method})" if method else ""
    problem = f"it has {key}{how}: quantised weights cannot be cut; give the model that it was made"
    written = OPENED_WHOLE.get(str(method))
    if not written:
        return f"{problem} from, in float32, bfloat16 or float16"
    typed = PYTHON.format(what=written.format(folder=folder))
    return f"{problem} from, or where that is gone write it as numbers, and give WHOLE: {typed}"


def adapter(folder: Path) -> str | None:
    """Why a folder with an adapter is no model, and what to type; None where it has none."""
    path = folder / ADAPTER
    if not path.is_file():
        return None
    base = read_object(path).get("base_model_name_or_path") or "a base model that it does not name"
    return (
        f"{folder} holds an adapter of {base}, not a model; merge it, and give the folder WHOLE: "
        'python -c "import peft; peft.AutoPeftModelForCausalLM.from_pretrained('
        f"'{folder}').merge_and_unload().save_pretrained('WHOLE')\""
    )


LISTED_ONLY = {"deci"}
"""What transformers lists, and has no model for: layers with widths of their own."""


def unread_gguf(field: Callable[[str], Any]) -> str | None:
    """Why a GGUF file cannot be read, and what to do, as a clause; None where it can.

    ``field`` gives what the file says of itself under a key.
    """
    import transformers
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if (parts := field("split.count")) and parts > 1:
        return (
            f"is one of {parts} parts, and transformers reads one file; join them: "
            "llama-gguf-split --merge FIRST.gguf WHOLE.gguf"
        )
    architecture = field("general.architecture")
    known = map(_plain, {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - LISTED_ONLY)
    if architecture is None or _plain(architecture) in known:
        return None
    return (
        f"is of the architecture {architecture!r}, which transformers {transformers.__version__} "
        "does not read from GGUF; give the model as a folder with safetensors, which export=hf "
        "writes of a pruned one"
    )


def _plain(architecture: str) -> str:
    """qwen3moe for qwen3_moe: files and transformers spell it differently."""
    return architecture.replace("_", "").replace("-", "")


def a_gguf_file(folder: Path) -> str:
    """How a GGUF file is taken: one that is there, where there is any."""
    first = next(iter(sorted(path.name for path in folder.glob("*.gguf"))), None)
    if first is None:
        return "a GGUF file is named by model.gguf_file"
    return f"to take {first} type model.gguf_file={first}"


def no_safetensors(folder: Path) -> str:
    """Why a folder without safetensors cannot be loaded, and what to type."""
    pickles = sorted({path.name for kind in PICKLES for path in folder.glob(kind)})
    problem = f"{folder} has no *.safetensors file"
    if any(folder.glob("*.gguf")):
        return f"{problem}; {a_gguf_file(folder)}"
    if not pickles:
        return f"{problem}; weights are loaded from safetensors or GGUF only"
    what = f"M.from_pretrained('{folder}').save_pretrained('WHOLE')"
    return (
        f"{problem}; {pickles[0]} is a pickle, which may run code as it is opened: weights are "
        "loaded from safetensors or GGUF only. Of a model that you trust write them anew, copy "
        f"its tokenizer's files there, and give WHOLE: {PYTHON.format(what=what)}"
    )
