"""Stage score: how sensitive the dense model is to losing each unit, in all three dimensions.

These are the first steps of the trajectories that start from the dense model; the one of the blocks
is the first step of every run, so it is computed once for both.
"""

from contextlib import closing
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.files import Json, encode, replace
from pipeline.pruning.state import DIMENSIONS, PruningState
from pipeline.scoring.one_pass import perplexity
from pipeline.stages.base import Inputs
from pipeline.stages.search import Search


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``sensitivity.json``: dense perplexity and every unit's, by dimension."""
    search = Search(config, inputs)
    dense = PruningState.dense(inputs.source.shape)
    sensitivity = {}
    for dimension in DIMENSIONS:
        dense_ppl = perplexity(inputs.live.at(dense), search.calibration.of(dimension))
        with closing(search.walk(dimension, dense)) as steps:
            first = next(steps, None)
        candidates = first.step.to_json()["candidates"] if first else []
        sensitivity[dimension] = {"dense_ppl": dense_ppl, "candidates": candidates}
    replace(out_dir / "sensitivity.json", encode(sensitivity))
    return {"dense_ppl": {d: sensitivity[d]["dense_ppl"] for d in DIMENSIONS}}
