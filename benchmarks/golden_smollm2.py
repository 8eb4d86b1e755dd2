#!/usr/bin/env python3
"""Check every step of SmolLM2-135M's recorded reference run, from the reference's state.

python benchmarks/golden_smollm2.py GOLDEN.json GGUF_FILE [--precision mixed] [--search race]

Needs torch, transformers and gguf; a minute on a GPU, hours on a CPU. The weights are rounded to
float16 and run in float32 without TF32, as the reference ran them. Per step: the same candidates,
each perplexity within 2e-4 (estimates left out), the same choice wherever the first leads by more
than 1e-4. Prints a line a step and a verdict; the exit status is 1 where anything differs.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import get_args

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.criteria.perplexity import PerplexityScorer, Precision, Search, losses_in
from pipeline.models.loading import LiveModel, load, resolve_device
from pipeline.models.source import locate
from pipeline.pruning.steps import Step
from pipeline.pruning.units import Candidate
from pipeline.scoring.perplexity import Windows

PPL_TOLERANCE = 2e-4
NEAR_TIE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("golden", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--steps", type=int, default=None, help="check only the first N steps")
    parser.add_argument("--precision", choices=get_args(Precision), default="model")
    parser.add_argument("--search", choices=get_args(Search), default="exhaustive")
    parser.add_argument("--memory-fraction", type=float, default=0.7)
    arguments = parser.parse_args()

    golden = json.loads(arguments.golden.read_text(encoding="utf-8"))
    device = resolve_device("auto")
    torch.backends.cuda.matmul.allow_tf32 = False
    started = time.monotonic()
    source = locate(str(arguments.gguf.parent), arguments.gguf.name, None)
    model = load(source, "float32", device, "sdpa")
    for parameter in model.model.parameters():
        parameter.data = parameter.data.half().float()
    if golden["weight_reorder"]:
        model.reorder()
    print(f"loaded on {_device_name(device)} in {time.monotonic() - started:.1f} s")
    windows = {
        kind: Windows(torch.tensor(rows), source.eos_id)
        for kind, rows in golden["calibration"].items()
    }

    ways = {
        kind: PerplexityScorer(
            arguments.search,
            *losses_in(
                arguments.precision,
                arguments.search,
                LiveModel(lambda _: model),
                arguments.memory_fraction,
                device,
                None,
            ),
            audit_every=0,
            windows=tokens,
            on_progress=lambda _: None,
        )
        for kind, tokens in windows.items()
    }
    wrong, worst, evaluations, in_full = [], 0.0, 0, 0
    last: Step | None = None
    started = time.monotonic()
    for reference in golden["steps"][: arguments.steps]:
        candidates = [Candidate.from_json(c) for c in reference["candidates"]]
        kind = "block" if candidates[0].unit.is_whole else "width"
        step_started = time.monotonic()
        if last and last.chosen.unit.is_whole != (kind == "block"):
            last = None
        step = ways[kind].step(0, model.state, candidates, last)
        last = step
        evaluations += len(candidates)
        in_full += sum(not s.estimated for s in step.scored)
        error = max(
            abs((s.score or float("inf")) / c["ppl"] - 1)
            for s, c in zip(step.scored, reference["candidates"], strict=True)
            if not s.estimated
        )
        first, second = sorted(c["ppl"] for c in reference["candidates"])[:2]
        chosen = Candidate.from_json(reference["chosen"])
        verdict = "same" if step.chosen == chosen else "OTHER"
        if step.chosen != chosen and second / first - 1 <= NEAR_TIE:
            verdict = "near-tie"
        worst = max(worst, error)
        if error > PPL_TOLERANCE or verdict == "OTHER":
            wrong.append(reference["step"])
        print(
            f"step {reference['step']:2d}  {chosen.unit.name:<10} {chosen.layer:2d}  {verdict:<8} "
            f"ppl error {error:.1e}  {time.monotonic() - step_started:5.2f} s"
        )
        model.prune_to(model.state.without(chosen))
    took = time.monotonic() - started
    print(
        f"{evaluations} evaluations ({in_full} in full) in {took:.1f} s; "
        f"worst perplexity error {worst:.1e} (allowed {PPL_TOLERANCE}); "
        f"steps that differ: {wrong or 'none'}"
    )
    return 1 if wrong else 0


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


if __name__ == "__main__":
    sys.exit(main())
