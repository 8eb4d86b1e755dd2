"""Stage score: how sensitive the dense model is to losing each unit, in every dimension.

These are the first steps of the trajectories that start from the dense model; the one of the first
dimension is the first step of the run, so it is computed once for both.
"""

from contextlib import closing
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.files import Json, encode, replace
from pipeline.methods import method_of
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.state import PruningState
from pipeline.scoring.one_pass import perplexity
from pipeline.stages.base import Inputs
from pipeline.stages.search import Search


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``sensitivity.json``: dense perplexity and every unit's, by dimension."""
    search, method = Search(config, inputs), method_of(config.prune)
    dense = PruningState.dense(shape_from_config(inputs.source.config))
    sensitivity = {}
    phases = {phase.dimension: phase for phase in method.phases(config.prune)}
    for dimension in method.dimensions:
        phase = phases[dimension]
        dense_ppl = perplexity(inputs.live.at(dense), search.windows(phase))
        with closing(search.walk(phase, dense)) as steps:
            first = next(steps, None)
        candidates = first.decision.scored_json()["candidates"] if first else []
        sensitivity[dimension] = {"dense_ppl": dense_ppl, "candidates": candidates}
    replace(out_dir / "sensitivity.json", encode(sensitivity))
    return {"dense_ppl": {d: sensitivity[d]["dense_ppl"] for d in sensitivity}}
