"""Stage score: how sensitive the dense model is to losing each unit, in all three dimensions.

These are the first steps of the trajectories that start from the dense model; the one of the blocks
is the first step of every run, so it is computed once for both.
"""

from contextlib import closing
from pathlib import Path
from typing import ClassVar

from pipeline.files import Json, encode, replace
from pipeline.pruning.state import DIMENSIONS, PruningState
from pipeline.settings.core import Config
from pipeline.settings.section import Section
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.prune import search_recipe


class ScoreConfig(Section):
    """The sensitivity of the dense model."""

    key: ClassVar[str] = "score"

    enabled: bool = True
    """Whether every unit of the dense model is scored in all three dimensions before pruning."""


def recipe(planning: Planning) -> Recipe | None:
    """The same as for the first steps of pruning."""
    if "calibrate" not in planning.planned or not planning.config.of(ScoreConfig).enabled:
        return None
    return search_recipe(planning)


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``sensitivity.json``: dense perplexity and every unit's, by dimension."""
    from pipeline.models.prunable import shape_from_config
    from pipeline.scoring.one_pass import perplexity
    from pipeline.stages.shared.search import Search

    search = Search(config, inputs)
    dense = PruningState.dense(shape_from_config(inputs.source.config))
    sensitivity = {}
    for dimension in DIMENSIONS:
        dense_ppl = perplexity(inputs.live.at(dense), search.calibration.of(dimension))
        with closing(search.walk(dimension, dense)) as steps:
            first = next(steps, None)
        candidates = first.step.to_json()["candidates"] if first else []
        sensitivity[dimension] = {"dense_ppl": dense_ppl, "candidates": candidates}
    replace(out_dir / "sensitivity.json", encode(sensitivity))
    return {"dense_ppl": {d: sensitivity[d]["dense_ppl"] for d in DIMENSIONS}}


STAGE = Stage(
    "score", 10, recipe, run, needs=("calibrate",), section=ScoreConfig,
    publishes=("sensitivity.json",), facts=lambda result: {"dense_ppl": result["dense_ppl"]},
)  # fmt: skip
