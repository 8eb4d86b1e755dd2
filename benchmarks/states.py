#!/usr/bin/env python3
"""States that walk together, side by side with one forward pass for each state.

python benchmarks/states.py builtin                                   # a minute on 2 CPU cores
python benchmarks/states.py smollm2 --gguf FILE --windows 14          # GPU
python benchmarks/states.py llama2_7b --dtype float16 --windows 14    # GPU, random weights

Three sets of states, as searches ask for them: children of one state by moves that keep the ratio,
states with a group less in one block each, and states of widths by chance, which have little in
common. "forward" is one forward pass for each state, by itself, with the same kernels and batches
of windows; "together" is one walk of ``pipeline/scoring/states.py``, which gives the same losses to
the last bit. Times are the best of ``--repeats``, taken in turns; on a CPU they are the
processor's, so that whatever else runs there does not count. "counted" is the speed-up by blocks
and losses alone.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scoring import Bench  # beside this file

from pipeline.evolution.base import Space
from pipeline.evolution.moves import moved
from pipeline.models.loading import DTYPES
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN, ATTN_WIDTH, MLP, MLP_WIDTH
from pipeline.scoring.one_pass import next_token_loss
from pipeline.scoring.perplexity import Windows
from pipeline.scoring.states import losses_of_states, passes_of_states

MOVES = 3
"""Between a state and its children at most."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=["builtin", "smollm2", "llama2_7b"])
    parser.add_argument("--gguf", type=Path, help="SmolLM2's GGUF file")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seqlen", type=int, default=None, help="256 for builtin, else 2048")
    parser.add_argument("--states", type=int, nargs="+", default=[16])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory-fraction", type=float, default=0.7)
    arguments = parser.parse_args()
    bench = Bench(arguments)
    windows = bench.windows()
    print("| states | number | forward, s | together, s | speed-up | counted |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, make in SETS.items():
        for count in arguments.states:
            states = make(bench, count)
            row(bench, name, states, windows)
    return 0


def row(bench: Bench, name: str, states: Sequence[PruningState], windows: Windows) -> None:
    """Both ways in turns."""

    def together() -> torch.Tensor:
        return losses(bench, states, windows)

    def alone() -> torch.Tensor:
        return torch.cat([losses(bench, [state], windows) for state in states])

    plain, shared = alone(), together()  # warms up
    assert torch.equal(plain, shared), "a state has the same losses whoever walks with it"
    taken = [(seconds(alone), seconds(together)) for _ in range(bench.arguments.repeats)]
    by_itself, in_one = (min(each) for each in zip(*taken, strict=True))
    passes = sum(passes_of_states([state]) for state in states) / passes_of_states(states)
    print(
        f"| {name} | {len(states)} | {by_itself:.3g} | {in_one:.3g} | "
        f"{by_itself / in_one:.2f} | {passes:.2f} |",
        flush=True,
    )


def losses(bench: Bench, states: Sequence[PruningState], windows: Windows) -> torch.Tensor:
    """Of states that walk together."""
    which, fraction = range(len(windows.ids)), bench.arguments.memory_fraction
    return losses_of_states(bench.model, states, windows, which, next_token_loss, fraction)


def seconds(work: Callable[[], object]) -> float:
    """Of a piece of work, until the device is done."""
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def parent(bench: Bench) -> tuple[PruningState, Space]:
    """A state with a tenth of its blocks gone and an eighth of every MLP, and what may move."""
    state, draw = bench.model.state, random.Random(0)
    mlp, attn = (state.shape.widths(kind)[0] // 8 for kind in ("mlp", "attn"))
    attn = max(attn, state.shape.layers[0].attn.group_width if state.shape.layers[0].attn else 0)
    for unit in (ATTN, MLP):
        for candidate in draw.sample(
            state.candidates((unit,), None), len(state.shape.layers) // 10
        ):
            state = state.without(candidate)
    for candidate in state.candidates((MLP_WIDTH,), mlp):
        state = state.without(candidate)
    for candidate in state.candidates((ATTN_WIDTH,), attn)[::3]:
        state = state.without(candidate)
    return state, Space({"attn": 0, "mlp": 0, "mlp_width": mlp, "attn_width": attn})


def children(bench: Bench, count: int) -> list[PruningState]:
    """As level switch asks for them."""
    (state, space), draw, found = parent(bench), random.Random(1), []
    for _ in range(count):
        child = state
        for _ in range(min(draw.randint(1, MOVES), draw.randint(1, MOVES))):
            child = moved(child, space, draw) or child
        found.append(child)
    return found


def neighbours(bench: Bench, count: int) -> list[PruningState]:
    """As a state is brought to the target."""
    state, space = parent(bench)
    units = ((ATTN_WIDTH, space.units["attn_width"]), (MLP_WIDTH, space.units["mlp_width"]))
    near = [state.without(each) for unit, size in units for each in state.candidates((unit,), size)]
    return random.Random(2).sample(near, min(count, len(near)))


def by_chance(bench: Bench, count: int) -> list[PruningState]:
    """As the first generations of NSGA-II would be without a start."""
    (state, space), draw, found = parent(bench), random.Random(3), []
    for _ in range(count):
        own = state
        for unit in (ATTN_WIDTH, MLP_WIDTH):
            size = space.units[unit.name]
            for _ in range(2):
                for candidate in own.candidates((unit,), size):
                    if draw.random() < 0.5:
                        own = own.without(candidate)
        found.append(own)
    return found


SETS = {"children": children, "neighbours": neighbours, "widths by chance": by_chance}

if __name__ == "__main__":
    sys.exit(main())
