"""A GGUF file for llama.cpp, ollama, LM Studio and whatever else is built on llama.cpp."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.export.base import Exporting, Target, TargetConfig
from pipeline.export.gguf.architectures import architecture_of, problems
from pipeline.files import Json

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

FILE = "model.gguf"


class GgufConfig(TargetConfig):
    """A GGUF file for llama.cpp."""

    dtype: str = Field("f16", pattern="^(f32|f16|bf16|q8_0|q5_1|q5_0|q4_1|q4_0)$")
    """f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0."""


def _refused(source: "ModelSource", _settings: GgufConfig) -> str | None:
    return next(iter(problems(source)), None)


def _write(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    from pipeline.errors import StageError
    from pipeline.export.gguf.file import write

    packed, dtype = exporting.packed, exporting.settings.dtype
    if found := problems(exporting.source, uniform=packed.is_uniform):
        raise StageError(f"export=gguf: {found[0]}")
    for warning in write(packed, exporting.source, folder / FILE, dtype):
        exporting.note(f"export=gguf: {warning}")
    architecture = architecture_of(packed).name
    return {"dtype": dtype, "layers": len(packed.layers), "architecture": architecture}


def _check(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    from pipeline.export.gguf.checking import check

    return check(exporting, folder / FILE)


HOW = f"""\
```sh
llama-cli -m {{name}}/{FILE}
```
"""

TARGET = Target("gguf", GgufConfig, _refused, _write, _check, HOW)
