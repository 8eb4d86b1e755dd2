"""A folder that transformers opens: an ordinary model of the family, or one with a file of code."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.export import opened
from pipeline.export.base import Exporting, Target, WeightsConfig
from pipeline.export.shards import write_shards
from pipeline.files import Json, is_file
from pipeline.models import modelling
from pipeline.models.families import PRUNED

if TYPE_CHECKING:
    import torch

    from pipeline.models.packing import PackedModel
    from pipeline.models.source import ModelSource


class HfConfig(WeightsConfig):
    """A folder for transformers and whatever builds on it."""


OF_THE_DENSE_MODEL = ("_name_or_path", "quantization_config", "auto_map")
"""Keys of a configuration that say nothing of the exported model."""


OF_IMAGES = ("preprocessor_config.json", "processor_config.json")
"""Files of a model that sees: what it makes of images."""


def write_folder(
    packed: "PackedModel",
    source: "ModelSource",
    folder: Path,
    dtype: "torch.dtype",
    shard_bytes: int,
) -> None:
    """Write weights, configuration, tokenizer and what generating takes into an empty folder."""
    values = configuration(packed, dtype)
    model_type = packed.architecture
    if packed.needs_code:
        text = modelling.source(packed.family, model_type)
        (folder / modelling.FILE).write_text(text, encoding="utf-8")
    write_model(packed, values, source, folder, dtype, shard_bytes)


def write_model(
    packed: "PackedModel",
    values: Mapping[str, Json],
    source: "ModelSource",
    folder: Path,
    dtype: "torch.dtype",
    shard_bytes: int,
) -> None:
    """Write ``config.json`` with these values, weights, tokenizer and settings of generating."""
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    weights = ((name, tensor.to(dtype)) for name, tensor in packed.published())
    write_shards(weights, folder, shard_bytes)
    _write_tokenizer(packed, source, folder)


def configuration(packed: "PackedModel", dtype: "torch.dtype") -> dict[str, Any]:
    """``config.json``: of an ordinary model as transformers has it, else with each layer's own."""
    model_type = packed.architecture
    values: dict[str, Any] = packed.config().to_diff_dict()
    for key in OF_THE_DENSE_MODEL:
        values.pop(key, None)
    values["dtype"] = str(dtype).removeprefix("torch.")
    values["model_type"] = model_type
    values["architectures"] = [modelling.architecture(model_type)]
    if packed.needs_code:
        classes = modelling.names(model_type)
        values["model_type"] = PRUNED + model_type
        values["architectures"] = [classes[modelling.CAUSAL].rpartition(".")[2]]
        values["auto_map"] = classes
    return values


def _write_tokenizer(packed: "PackedModel", source: "ModelSource", folder: Path) -> None:
    """The tokenizer with its chat template, and how the dense model generates and sees."""
    if source.tokenizer_files:
        source.own_tokenizer.save_pretrained(folder)
    if packed.family.text_config:
        for name in OF_IMAGES:
            if is_file(source.folder / name):
                shutil.copyfile(source.folder / name, folder / name)
    settings = source.folder / "generation_config.json"
    if not source.gguf_file and settings.is_file():
        shutil.copyfile(settings, folder / settings.name)
    elif packed.model.model.generation_config is not None:
        packed.model.model.generation_config.save_pretrained(folder)


def _write(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    from pipeline.models.loading import DTYPES

    packed, dtype = exporting.packed, exporting.number_format
    shard_bytes = exporting.settings.shard_bytes
    write_folder(packed, exporting.source, folder, DTYPES[dtype], shard_bytes)
    return {
        "dtype": dtype,
        "layers": len(packed.layers),
        "needs_code": packed.needs_code,
        "opens_with": packed.opens_with,
    }


def _check(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    return opened.check_folder(exporting, folder, exporting.number_format)


def _refused(_source: "ModelSource", _settings: HfConfig, _uniform: bool | None) -> None:
    """Every family that is pruned can be written."""


HOW = """\
```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("{name}"{code})
tokenizer = AutoTokenizer.from_pretrained("{name}"{code})
```
"""

TARGET = Target("hf", HfConfig, _refused, _write, _check, HOW)
