#!/usr/bin/env python3
"""Tokens per second of dense and pruned SmolLM2-135M in llama.cpp on this CPU.

python benchmarks/llama_cpp.py GOLDEN.json GGUF_FILE [--dtype q8_0] [--threads 2] [--rounds 40]

GOLDEN.json holds the pruning_config of a recorded run. Both models are written as GGUF by this
project in the same format, and timed in turns in one process: each round gives each one prefill and
greedy decoding after it. Prints medians and the speed-up with its 95 % interval; the exit status is
1 where the lower bound of decoding is below --least. Needs xllamacpp; say how busy the machine was.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.export.gguf.file import FORMATS, write
from pipeline.export.llama_cpp.asking import speed, speed_up
from pipeline.models.loading import load
from pipeline.models.packing import PackedModel
from pipeline.models.source import locate
from pipeline.pruning.state import PruningState


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("golden", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--dtype", choices=FORMATS, default="q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--least", type=float, default=1.10)
    arguments = parser.parse_args()

    golden = json.loads(arguments.golden.read_text(encoding="utf-8"))
    source = locate(str(arguments.gguf.parent), arguments.gguf.name, None)
    model = load(source, "float32", "cpu", "sdpa")
    if golden["weight_reorder"]:
        model.reorder()
    with tempfile.TemporaryDirectory() as folder:
        dense, pruned = Path(folder, "dense.gguf"), Path(folder, "pruned.gguf")
        write(PackedModel.of(model, source.config), source, dense, arguments.dtype)
        model.prune_to(PruningState.from_pruning_config(model.shape, golden["pruning_config"]))
        write(PackedModel.of(model, source.config), source, pruned, arguments.dtype)
        sizes = [path.stat().st_size / 1e6 for path in (dense, pruned)]
        ratio = model.state.ratio_percent
        del model
        found = speed(
            [dense, pruned],
            threads=arguments.threads,
            prompt_tokens=arguments.prompt_tokens,
            output_tokens=arguments.output_tokens,
            rounds=arguments.rounds,
        )
    print(f"{source.name}, {ratio:.1f} % removed, {arguments.dtype}, {arguments.threads} threads,")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {arguments.rounds} rounds\n")
    print("| | dense | pruned | times as fast (95 %) |\n| --- | --- | --- | --- |")
    print(f"| file, MB | {sizes[0]:.0f} | {sizes[1]:.0f} | |")
    for name, rounds in (("prefill", found.prefill), ("decode", found.decode)):
        gain = speed_up(*rounds)
        print(
            f"| {name}, tokens/s | {median(rounds[0]):.1f} | {median(rounds[1]):.1f} | "
            f"{gain.median:.3f} ({gain.low:.3f} to {gain.high:.3f}) |"
        )
    return int(gain.low < arguments.least)


if __name__ == "__main__":
    sys.exit(main())
