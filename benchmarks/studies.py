#!/usr/bin/env python3
"""Searches against chance: the hypervolume that each method has after an equal budget of runs.

python benchmarks/studies.py [--runs 24 48] [--seeds 5] [--population 8]

What runs give is looked up in ``studies_table.json``, so that hundreds of studies take seconds: all
180 runs of the built-in model over target_ratio x distribution x mlp_group_size, 16 of which cannot
be reached and fail, as

    python launch.py -m prune.target_ratio=5,10,15,20,25,30 prune.mlp_group_size=64,128
        prune.distribution=[0,0,100],[0,25,75],...,[100,0,0] (all in steps of 25)
        score.enabled=false probe=none calibration.block_windows=4 calibration.width_windows=4
        calibration.seqlen=64 'evaluate.tasks=[]' evaluate.text_tokens=4096 sweep.name=table

gave them. Goals are the perplexity of the held-out stories and the parameters that are left. The
hypervolume is measured from a fixed point, the dense model's parameters and a perplexity of 40, and
given as a share of what all 180 runs together have.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pipeline.files import encode
from pipeline.settings.study import StudyConfig
from pipeline.studies.base import Trial
from pipeline.studies.pareto import hypervolume
from pipeline.studies.search import Search

METHODS = ("random", "nsga2", "tpe")
REFERENCE = (40.0, 4_845_504.0)
SPACE = {
    "prune.target_ratio": {"low": 5, "high": 30, "step": 5},
    "prune.distribution": {"simplex": 3, "step": 25},
    "prune.mlp_group_size": {"choices": [64, 128]},
}


def table() -> dict[str, dict[str, float] | None]:
    """What runs have, by their values; None of one that fails."""
    rows = json.loads((HERE / "studies_table.json").read_text(encoding="utf-8"))
    return {
        encode(dict(zip(sorted(SPACE), (distribution, group, ratio), strict=True))): (
            None if ppl is None else {"ppl": ppl, "params": params}
        )
        for ratio, distribution, group, ppl, params in rows
    }


def studied(known: dict[str, dict[str, float] | None], settings: StudyConfig) -> list[Trial]:
    """A whole study."""
    search, trials = Search(settings), []
    while proposed := search.next(trials):
        generation = trials[-1].generation + 1 if trials else 0
        for values in proposed:
            outcome = known[encode(values)]
            state = "failed" if outcome is None else "done"
            trials.append(Trial(len(trials), values, outcome, state, generation))
    return trials


def volume(outcomes: list[dict[str, float]]) -> float:
    """Of what runs have, from the fixed point."""
    return hypervolume([(each["ppl"], each["params"]) for each in outcomes], REFERENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--population", type=int, default=8)
    given = parser.parse_args()
    known = table()
    whole = volume([outcome for outcome in known.values() if outcome])
    base = StudyConfig.model_validate({
        "space": SPACE, "objectives": ["minimize ppl", "minimize params"],
        "population": given.population,
    })  # fmt: skip
    print("| runs | method | median of the hypervolume | all seeds | seconds a study |")
    print("| --- | --- | --- | --- | --- |")
    for runs in given.runs:
        for method in METHODS:
            shares, start = [], time.perf_counter()
            for seed in range(given.seeds):
                chosen = {"runs": runs, "method": method, "seed": seed}
                trials = studied(known, base.model_copy(update=chosen))
                shares.append(volume([t.outcome for t in trials if t.outcome]) / whole * 100)
            seconds = (time.perf_counter() - start) / given.seeds
            each = ", ".join(f"{share:.1f}" for share in shares)
            print(f"| {runs} | {method} | {median(shares):.1f} % | {each} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
