#!/usr/bin/env python3
"""A block step of the built-in model on more and more ranks, each with one CPU thread or one GPU.

python benchmarks/ranks.py 1 2

Starts itself under torchrun once for each number. Tokens are random: the time does not depend on
them. The time is of the second step that is scored, so that every rank has its model.
"""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.distributed.ranks import Leader, losses_of
from pipeline.distributed.start import over_ranks
from pipeline.executors import ranks
from pipeline.models.loading import LiveModel, load, resolve_device
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import locate
from pipeline.models.variants import Variant
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS
from pipeline.scoring.perplexity import Windows

WINDOWS, SEQLEN = 8, 256
MEASURE = "measure"


def main() -> int:
    if sys.argv[1:] == [MEASURE]:
        torch.set_num_threads(1)
        over_ranks(measure, ranks(os.environ))
        return 0
    alone = None
    print("| ranks | s/step | speed-up |\n| --- | --- | --- |")
    for number in map(int, sys.argv[1:]):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={number}", __file__, MEASURE]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        out = subprocess.run(  # noqa: S603 - our own interpreter and file
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
        seconds = float(out.splitlines()[-1])
        alone = alone or seconds
        print(f"| {number} | {seconds:.2f} | {alone / seconds:.2f} |")
    return 0


def measure(leader: Leader | None) -> None:
    """Print the seconds of one step; rank 0 alone does."""
    device = resolve_device("auto")
    live = LiveModel(partial(load_builtin, device))
    losses = losses_of(leader, live, 0.5, device, keep=False)
    state = PruningState.dense(load_builtin(device).shape)
    ids = torch.randint(3, 4096, (WINDOWS, SEQLEN), generator=torch.Generator().manual_seed(0))
    windows, candidates = Windows(ids, 2), state.candidates(BLOCKS, 0)
    losses(state, candidates, windows, lambda _: None)
    started = time.perf_counter()
    losses(state, candidates, windows, lambda _: None)
    print(time.perf_counter() - started)


def load_builtin(device: str, _: Variant | None = None) -> PrunableModel:
    """The built-in model; ranks load it by this function's name."""
    source = locate(str(ROOT / "pipeline" / "builtin" / "stories-5m"), None, None)
    return load(source, "float32", device, "sdpa")


if __name__ == "__main__":
    # what ranks are told to load is found under this name in every process
    sys.modules["ranks_benchmark"] = sys.modules["__main__"]
    load_builtin.__module__ = "ranks_benchmark"
    sys.exit(main())
