#!/usr/bin/env python3
"""What recovery wins back of SmolLM2-135M's recorded run, by somebody else's measure.

python benchmarks/recovery.py GOLDEN.json GGUF_FILE MEASURE.py SETS.json HELD_OUT.txt [--seeds 3]
    [--ratio 10] [--technique distill] [--set distill.lr=4e-4 ...]
    [--state NAME=PRUNING_CONFIG.json ...] [--times c4=2 ...]

MEASURE.py has ``measure(model, sets)``; SETS.json what its ``token_sets`` gave: ``train`` is all
that is learnt from, HELD_OUT.txt (text of another kind) tells whether it helps. Prints
perplexities, the share of the lost log-perplexity that came back, ln(cut / recovered) over
ln(cut / dense), mean and
spread over seeds, the seconds of each technique, and the difference of accuracies over the same
items with its interval of 95 %. Needs a GPU.
"""

import argparse
import importlib.util
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.models.loading import DenseLoader, LiveModel, resolve_device
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import locate
from pipeline.models.variants import dense_lineage
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate
from pipeline.recovery import techniques
from pipeline.recovery.base import Examples, Progress, Recovering
from pipeline.recovery.text.windows import whole

RATIOS = (10.0, 22.0)
TEXTS = ("wt", "c4")
HELD_OUT_TOKENS = 16_384
WINDOW = 1024
BATCH = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("golden", "gguf", "measure", "sets", "held_out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--technique", action="append", help="a list, e.g. compensate,distill")
    parser.add_argument("--set", action="append", default=[], metavar="TECHNIQUE.KEY=VALUE")
    parser.add_argument("--state", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--ratio", type=float, action="append", help="of the recorded run, in %%")
    parser.add_argument(
        "--times", action="append", default=[], metavar="SOURCE=NUMBER",
        help="how often an epoch has the windows of a source of SETS.json",
    )  # fmt: skip
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("measure", arguments.measure)
    assert spec is not None
    assert spec.loader is not None
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    sets = json.loads(arguments.sets.read_text())

    device = resolve_device("auto")
    source = locate(str(arguments.gguf.parent), arguments.gguf.name, None)
    loader = DenseLoader(source, arguments.dtype, device, "sdpa", "none", reorder=True)
    live = LiveModel(loader, dense_lineage("smollm2", reordered=True))
    text = arguments.held_out.read_text(encoding="utf-8")
    ids = source.tokenizer(text, verbose=False)["input_ids"][:HELD_OUT_TOKENS]
    ids = ids[: len(ids) // WINDOW * WINDOW]
    held_out = {"held out": whole(torch.tensor(ids).view(-1, WINDOW))}
    times = {name: int(number) for name, _, number in (t.partition("=") for t in arguments.times)}
    windows = [row for name, rows in sets["train"].items() for row in rows * times.get(name, 1)]
    dense = measured(measure, live.at(live.cut(PruningState.dense(source.shape))), sets)
    print(f"{'dense':34}", told(dense, None, None), flush=True)
    for name, state in states(arguments, source.shape):
        cut = measured(measure, live.at(live.cut(state)), sets)
        print(f"{name} {state.ratio_percent:.1f} %, {'cut':20}", told(cut, None, None), flush=True)
        for steps in arguments.technique or ["compensate", "distill"]:
            found = [
                recovered(arguments, live, state, source, steps.split(","), seed, windows, held_out,
                          lambda model: measured(measure, model, sets))
                for seed in range(arguments.seeds)
            ]  # fmt: skip
            for seed, each in enumerate(found):
                print(f"{name} {steps} seed {seed}", told(each, cut, dense), flush=True)
            for of in TEXTS:
                shares = [share(each, cut, dense, of) for each in found]
                spread = max(shares) - min(shares)
                print(f"{name} {steps} {of}: {mean(shares):.1%} back, spread {spread:.1%}")
            print(f"{name} {steps} accuracy, recovered - cut: {paired(found, cut)}", flush=True)
    return 0


def states(arguments: Any, shape: Any) -> Iterator[tuple[str, PruningState]]:
    """Of the recorded run, or those that were given."""
    for given in arguments.state:
        name, _, file = given.partition("=")
        yield name, PruningState.from_pruning_config(shape, json.loads(Path(file).read_text()))
    if arguments.state:
        return
    state, left = PruningState.dense(shape), arguments.ratio or list(RATIOS)
    for step in json.loads(arguments.golden.read_text())["steps"]:
        chosen = step["chosen"]
        state = state.without(Candidate.from_json(chosen))
        if left and state.ratio_percent >= left[0]:
            yield "recorded", state
            del left[0]


def recovered(
    arguments: Any, live: LiveModel, state: PruningState, source: Any, steps: list[str], seed: int,
    windows: list[list[int]], held_out: Mapping[str, Examples], measure: Any,
) -> dict[str, Any]:  # fmt: skip
    """What is measured of the state after some techniques, and how long they took."""
    variant = live.cut(state)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    train = whole(torch.tensor(windows)[order])
    started, seconds = time.monotonic(), {}
    live.forget()
    live.at(variant)
    for name in steps:
        technique = techniques()[name]
        settings = {}
        for given in arguments.set:
            key, _, value = given.partition("=")
            if key.startswith(f"{name}."):
                settings[key.removeprefix(f"{name}.")] = json.loads(value)
        section = technique.section(**{"tokens": 10**9, **settings})
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            recovering = Recovering(
                live, variant, source, section, train, held_out, seed, Path(folder),
                note=lambda _: None, warn=lambda text: print("warning:", text),
                progress=show,
            )  # fmt: skip
            technique.run(recovering)
        seconds[name] = time.monotonic() - started
    live.drop_twin()
    result = {**measure(live.at(variant)), "seconds": seconds}
    live.forget()
    return result


def show(progress: Progress) -> None:
    if progress.held_out:
        print(f"  {progress.tokens:,} tokens, {progress.held_out}", flush=True)


def measured(measure: Any, model: PrunableModel, sets: Any) -> dict[str, Any]:
    """As ``measure`` measures, with which items were right by length-normalised likelihood."""
    result = measure.measure(model.model, sets)
    items = {task: hits(model, of_task) for task, of_task in sets["tasks"].items()}
    for task, right in items.items():
        assert abs(mean(right) - result["acc"][task][1]) < 2e-3, task
    return {**result, "items": items}


@torch.no_grad()
def hits(model: PrunableModel, items: list[Any]) -> list[int]:
    """1 for each item that is right, 0 for others."""
    asked = [
        (i, j, *choice) for i, (choices, _) in enumerate(items) for j, choice in enumerate(choices)
    ]
    asked.sort(key=lambda entry: -len(entry[2]))
    score = {}
    for at in range(0, len(asked), BATCH):
        part = asked[at : at + BATCH]
        ids = torch.zeros(len(part), len(part[0][2]), dtype=torch.long)
        for row, entry in enumerate(part):
            ids[row, : len(entry[2])] = torch.tensor(entry[2])
        logits = model.model(ids.to(model.device)).logits.float().log_softmax(-1)
        for row, (i, j, tokens, start, characters) in enumerate(part):
            target = torch.tensor(tokens[start:], device=logits.device)[:, None]
            value = logits[row, start - 1 : len(tokens) - 1].gather(1, target).sum().item()
            score[i, j] = value / characters
    return [
        int(max(range(len(choices)), key=lambda j: score[i, j]) == label)
        for i, (choices, label) in enumerate(items)
    ]


def share(found: Any, cut: Any, dense: Any, of: str) -> float:
    return math.log(cut[of] / found[of]) / math.log(cut[of] / dense[of])


def told(found: Any, cut: Any, dense: Any) -> str:
    shares = (
        ""
        if cut is None
        else f" ({share(found, cut, dense, 'wt'):.1%}, {share(found, cut, dense, 'c4'):.1%})"
    )
    took = " ".join(f"{name} {s:.1f} s" for name, s in found.get("seconds", {}).items())
    return (
        f"wt {found['wt']:.2f} c4 {found['c4']:.2f}{shares} acc_norm {found['acc_norm']:.4f} {took}"
    )


def paired(found: list[Any], cut: Any) -> str:
    """Mean difference over items and seeds, in points, with its interval of 95 % over items."""
    differences = torch.tensor([
        mean(each["items"][task][at] for each in found) - right
        for task, of_task in cut["items"].items()
        for at, right in enumerate(of_task)
    ], dtype=torch.float64)  # fmt: skip
    error = 1.96 * differences.std().item() / math.sqrt(len(differences))
    middle = differences.mean().item()
    low, high = 100 * (middle - error), 100 * (middle + error)
    return f"{100 * middle:+.2f} points ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    sys.exit(main())
