"""Stage dense, which only sweeps have: the dense model, evaluated once for all runs."""

from pathlib import Path

from pipeline.files import Json
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import (
    EvaluateConfig,
    data_sources,
    evaluation_protocol,
    evaluation_recipe,
    prunes,
    quality,
)
from pipeline.stages.shared.phases import stored_order_of


def recipe(planning: Planning) -> Recipe | None:
    """What is evaluated."""
    config = planning.config
    is_wanted = config.sweep.name is not None and config.of(EvaluateConfig).enabled
    if not is_wanted or not prunes(config):
        return None
    recipe = evaluation_recipe(planning)
    if stored_order_of(config):  # in which a dense model computes the same
        recipe["model"] = {**recipe["model"], "weight_reorder": False}
    return recipe


def run(config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Evaluate the dense model."""
    from pipeline.stages.shared.measuring import Measurements

    dense = inputs.live.cut(PruningState.dense(inputs.source.shape))
    measurements = Measurements(config, inputs, evaluation_protocol(config), data_sources(config))
    inputs.listener.on_ahead(measurements.missing([dense]))
    return quality(measurements.of(dense, "the dense model"))


STAGE = Stage("dense", 20, recipe, run, resources="evaluate")
