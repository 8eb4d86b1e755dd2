"""A folder that transformers opens: an ordinary model of the family, or one with a file of code."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.export import modelling
from pipeline.export.shards import write_shards
from pipeline.models.packing import PackedModel

if TYPE_CHECKING:
    import torch

    from pipeline.models.source import ModelSource

OF_THE_DENSE_MODEL = ("_name_or_path", "quantization_config", "auto_map")
"""Keys of a configuration that say nothing of the exported model."""


def write(
    packed: PackedModel, source: "ModelSource", folder: Path, dtype: "torch.dtype", shard_bytes: int
) -> None:
    """Write weights, configuration, tokenizer and what generating takes into an empty folder."""
    values = configuration(packed, dtype)
    if not packed.is_uniform:
        text = modelling.source(packed.family, packed.dense.model_type)
        (folder / modelling.FILE).write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_shards(in_format(packed, dtype), folder, shard_bytes)
    write_tokenizer(packed, source, folder)


def configuration(packed: PackedModel, dtype: "torch.dtype") -> dict[str, Any]:
    """``config.json``: of a uniform model as transformers has it, else with each layer's own."""
    values: dict[str, Any] = packed.config().to_dict()
    for key in OF_THE_DENSE_MODEL:
        values.pop(key, None)
    values["dtype"] = str(dtype).removeprefix("torch.")
    values["architectures"] = [modelling.architecture(packed.dense.model_type)]
    if not packed.is_uniform:
        classes = modelling.names(packed.dense.model_type)
        values["model_type"] = modelling.PREFIX + packed.dense.model_type
        values["architectures"] = [classes["AutoModelForCausalLM"].rpartition(".")[2]]
        values["auto_map"] = classes
    return values


def write_tokenizer(packed: PackedModel, source: "ModelSource", folder: Path) -> None:
    """The tokenizer with its chat template, and the dense model's generation settings."""
    if source.tokenizer_files:
        source.tokenizer.save_pretrained(folder)
    settings = source.folder / "generation_config.json"
    if not source.gguf_file and settings.is_file():
        shutil.copyfile(settings, folder / settings.name)
    elif packed.model.model.generation_config is not None:
        packed.model.model.generation_config.save_pretrained(folder)


def in_format(packed: PackedModel, dtype: "torch.dtype") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Every weight in a number format."""
    for name, tensor in packed.tensors():
        yield name, tensor.to(dtype)
