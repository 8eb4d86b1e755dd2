"""The checkpoint that vLLM, SGLang and TensorRT-LLM read: Nvidia's DeciLM (nemotron-nas).

It knows layers without attention or MLP and MLPs of any width. It does not know layers with fewer
heads: those are filled up with heads of zeros.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import StageError
from pipeline.export.base import Exporting, Target, WeightsConfig
from pipeline.export.hf import OF_THE_DENSE_MODEL, write_model
from pipeline.export.shards import shapes_in
from pipeline.files import Json, read_json

if TYPE_CHECKING:
    import torch

    from pipeline.models.families.base import BlockLayout, Family, Projection
    from pipeline.models.packing import PackedLayer, PackedModel
    from pipeline.models.source import ModelSource

CONFIGURATION = "configuration_decilm.py"
QKV_BIAS = {"llama": False, "mistral": False, "qwen2": True}
"""Families that DeciLM can express, and whether queries, keys and values have biases alone."""
OF_ANOTHER_FAMILY = (
    "layer_types", "use_sliding_window", "sliding_window", "max_window_layers", "per_layer_config"
)  # fmt: skip


def refused(model_type: str, text: Any) -> str | None:
    """Why a model cannot be written, in words; None where it can."""
    if model_type not in QKV_BIAS:
        return f"DeciLM has no place for what makes a {model_type} model; take export=hf"
    types = set(getattr(text, "layer_types", None) or ())
    if "sliding_attention" in types or (getattr(text, "sliding_window", None) and not types):
        return "DeciLM attends to everything, and this model has sliding windows; take export=hf"
    return None


def filled(packed: "PackedModel") -> "PackedModel":
    """With the same number of heads in every attention."""
    return packed.padded(["attn"], whole=False)


def zero_heads(packed: "PackedModel") -> int:
    """Query heads of zeros: what was removed and is there again."""
    own = sum(layer.heads[0] for layer in packed.layers)
    return sum(layer.heads[0] for layer in filled(packed).layers) - own


def write_folder(
    packed: "PackedModel",
    source: "ModelSource",
    folder: Path,
    dtype: "torch.dtype",
    shard_bytes: int,
) -> None:
    """Write weights, configuration and tokenizer into an empty folder."""
    whole = filled(packed)
    values = configuration(whole, dtype)
    text = resources.files("pipeline.export").joinpath(f"{CONFIGURATION}.txt")
    (folder / CONFIGURATION).write_text(text.read_text(encoding="utf-8"), encoding="utf-8")
    write_model(whole, values, source, folder, dtype, shard_bytes)


def configuration(packed: "PackedModel", dtype: "torch.dtype") -> dict[str, Any]:
    """``config.json``; ``packed`` has as many heads in every attention."""
    widest = packed.widest
    queries_per_key = widest.query // widest.key_value
    values: dict[str, Any] = packed.dense.to_dict()
    for key in (*OF_ANOTHER_FAMILY, *OF_THE_DENSE_MODEL):
        values.pop(key, None)
    qkv_bias = QKV_BIAS[packed.architecture]
    values |= {
        "model_type": "nemotron-nas",
        "architectures": ["DeciLMForCausalLM"],
        "auto_map": {"AutoConfig": f"{CONFIGURATION.removesuffix('.py')}.DeciLMConfig"},
        "dtype": str(dtype).removeprefix("torch."),
        "num_hidden_layers": len(packed.layers),
        "num_attention_heads": widest.query,
        "num_key_value_heads": widest.key_value,
        "head_dim": packed.head_dim,
        "intermediate_size": widest.intermediate or packed.dense.intermediate_size,
        "attention_bias": False if qkv_bias else getattr(packed.dense, "attention_bias", False),
        "mlp_bias": getattr(packed.dense, "mlp_bias", False),
        "block_configs": [_block(layer, queries_per_key) for layer in packed.layers],
    }
    return {**values, "qkv_bias": True} if qkv_bias else values


def _block(layer: "PackedLayer", queries_per_key: int) -> dict[str, Any]:
    """What a layer has. Without ``ffn_mult`` engines take the width as it stands."""
    return {
        "attention": {
            "no_op": layer.attn is None,
            "n_heads_in_group": queries_per_key if layer.attn else None,
            "replace_with_linear": False,
        },
        "ffn": {
            "no_op": layer.mlp is None,
            "intermediate_size": layer.intermediate_size or None,
            "replace_with_linear": False,
        },
    }


def expected(values: dict[str, Any], family: "Family") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that vLLM's loader makes of a configuration.

    As its ``nemotron_nas.py`` reads it, with the names of a Llama; the head is absent where it is
    tied.
    """
    hidden = values["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (values["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not values["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (values["vocab_size"], hidden)
    for index, block in enumerate(values["block_configs"]):
        for layout, lengths, has_bias in _parts(values, family, block):
            prefix = f"model.layers.{index}."
            shapes[f"{prefix}{layout.norm_before}.weight"] = (hidden,)
            for projection in layout.projections:
                rows = sum(lengths[segment] for segment in projection.rows) or hidden
                columns = sum(lengths[segment] for segment in projection.columns) or hidden
                name, bias = f"{prefix}{layout.body}.{projection.name}", has_bias(projection)
                shapes |= _linear(name, rows, columns, bias=bias)
    return shapes


def _parts(
    values: dict[str, Any], family: "Family", block: dict[str, Any]
) -> "Iterator[tuple[BlockLayout, dict[str, int], Callable[[Projection], bool]]]":
    """The blocks of a layer: rows or columns of each segment, and which linears are biased."""
    attention, ffn = block["attention"], block["ffn"]
    if not attention["no_op"]:
        heads, dim = values["num_attention_heads"], values["head_dim"]
        groups = heads // attention["n_heads_in_group"] * dim
        lengths = {"query": heads * dim, "key": groups, "value": groups}
        everywhere, of_rows = values["attention_bias"], values.get("qkv_bias", False)
        yield family.attn, lengths, lambda p: bool(everywhere or (of_rows and p.rows))
    if not ffn["no_op"]:
        yield family.mlp, {"channel": ffn["intermediate_size"]}, lambda _: values["mlp_bias"]


def _linear(name: str, rows: int, columns: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    weight = {f"{name}.weight": (rows, columns)}
    return weight | ({f"{name}.bias": (rows,)} if bias else {})


class VllmConfig(WeightsConfig):
    """A checkpoint for vLLM, SGLang and TensorRT-LLM (nemotron-nas)."""


def _refused(source: "ModelSource", _settings: VllmConfig, _uniform: bool | None) -> str | None:
    return refused(source.architecture, source.family.text(source.config))


def _write(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    from pipeline.models.loading import DTYPES

    packed, dtype = exporting.packed, exporting.number_format
    shard_bytes = exporting.settings.shard_bytes
    write_folder(packed, exporting.source, folder, DTYPES[dtype], shard_bytes)
    if zeros := zero_heads(packed):
        exporting.note(
            f"export=vllm: engines know one number of heads, so {zeros} heads that went are there "
            "again as zeros: what removing them saved is lost"
        )
    return {"dtype": dtype, "layers": len(packed.layers), "zero_heads": zeros}


def _check(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    """Names and shapes as the loader asks for them; no engine was run."""
    family = exporting.packed.family
    wanted, found = expected(read_json(folder / "config.json"), family), shapes_in(folder)
    if wrong := sorted(set(wanted.items()) ^ set(found.items())):
        raise StageError(f"vLLM's loader would not take {wrong[0][0]} of the exported model")
    return {"checked": "names and shapes, as vLLM's loader reads them; no engine was run"}


HOW = """\
```sh
vllm serve {name} --trust-remote-code
```
"""

TARGET = Target("vllm", VllmConfig, _refused, _write, _check, HOW)
