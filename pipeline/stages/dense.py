"""Stage dense, which only sweeps have: the dense model, evaluated once for all runs."""

from pathlib import Path

from pipeline.files import Json
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import EvaluateConfig, evaluation_recipe


def recipe(planning: Planning) -> Recipe | None:
    """What is evaluated."""
    config = planning.config
    is_wanted = config.sweep.name is not None and config.of(EvaluateConfig).enabled
    return evaluation_recipe(planning) if is_wanted and "calibrate" in planning.planned else None


def run(config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Evaluate the dense model."""
    from pipeline.stages.shared.measuring import Measurements

    settings = config.of(EvaluateConfig)
    dense = inputs.live.cut(PruningState.dense(inputs.source.shape))
    record = Measurements(config, inputs, settings.protocol, settings.setup).of(dense)
    return {"accuracy": record.accuracy, "ppl": record.ppl}


STAGE = Stage("dense", 20, recipe, run, resources="evaluate")
