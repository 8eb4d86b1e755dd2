"""A GGUF file for llama.cpp, ollama, LM Studio and whatever else is built on llama.cpp."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from pipeline.export.base import Exporting, Target, TargetConfig
from pipeline.export.gguf.architectures import architecture_of, problems
from pipeline.files import Json

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

FILE = "model.gguf"
PROMPT, OUTPUT, ROUNDS = 128, 32, 12
"""Tokens and rounds of timing."""


class GgufConfig(TargetConfig):
    """A GGUF file for llama.cpp."""

    dtype: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "f16"
    """Of the weights."""
    speed: bool = True
    """Time the dense and the pruned model in turns in llama.cpp on this CPU, where it is there."""


def _refused(source: "ModelSource", _settings: GgufConfig, uniform: bool | None) -> str | None:
    return next(iter(problems(source, uniform=uniform)), None)


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
    from pipeline.export.llama_cpp.asking import available

    checked = check(exporting, folder / FILE)
    return {**checked, **_beside_dense(exporting, folder)} if available() else checked


def _beside_dense(exporting: Exporting, folder: Path) -> Mapping[str, Json]:
    """What the same format does to the dense model, and both timed in turns."""
    from pipeline.export.gguf.checking import MOST_DIVERGENCE, divergence
    from pipeline.export.gguf.file import write

    dtype, is_timed = exporting.settings.dtype, exporting.settings.speed
    is_rounded = dtype in MOST_DIVERGENCE
    if not (is_rounded or is_timed):
        return {}
    exporting.note(f"writing the dense model in {dtype}, to compare with")
    dense, path, found = exporting.dense(), folder.with_name(".dense.gguf"), {}
    try:
        write(dense, exporting.source, path, dtype)
        if is_rounded:
            found["dense_divergence_nats"] = divergence(path, dense.model, exporting.ids)
        if is_timed:
            exporting.note("timing it in llama.cpp, in turns with the dense model")
            found["llama_cpp"] = _speeds(path, folder / FILE)
    finally:
        path.unlink(missing_ok=True)
    return found


def _speeds(dense: Path, pruned: Path) -> Json:
    """Of two files, timed in turns."""
    import os

    from pipeline.export.llama_cpp.asking import speed, speed_up

    threads = len(os.sched_getaffinity(0))
    found = speed(
        [dense, pruned],
        threads=threads, prompt_tokens=PROMPT, output_tokens=OUTPUT, rounds=ROUNDS,
    )  # fmt: skip
    timed = {"prefill": found.prefill, "decode": found.decode}
    return {
        "threads": threads,
        "prompt_tokens": PROMPT,
        "output_tokens": OUTPUT,
        **{
            name: {
                "dense_tokens_per_s": median(before),
                "pruned_tokens_per_s": median(after),
                "speed_up": asdict(speed_up(before, after)),
            }
            for name, (before, after) in timed.items()
        },
    }


HOW = f"""\
```sh
llama-cli -m {{name}}/{FILE}
```
"""

TARGET = Target("gguf", GgufConfig, _refused, _write, _check, HOW)
