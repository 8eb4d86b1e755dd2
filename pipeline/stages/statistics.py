"""Stage statistics: one pass of the dense model over the calibration windows for blocks.

Made once for a model and a text, whichever methods ask for it.
"""

from pathlib import Path

from pipeline.criteria.base import STATISTICS
from pipeline.files import Json, replace
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import needs_of

VERSION = 1
"""Raised by hand when other numbers would come out."""


def recipe(planning: Planning) -> Recipe | None:
    """The dense model and the text; nothing where nobody asks for it."""
    config = planning.config
    if not prunes(config) or STATISTICS not in needs_of(config):
        return None
    model = identity.of_dense(config, planning.weights)
    return {"version": VERSION, "model": model, "calibrate": planning.key("calibrate")}


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``statistics.safetensors``."""
    from safetensors.torch import save

    from pipeline.scoring.memory import Budget
    from pipeline.stages.shared.calibration import Calibration
    from pipeline.stages.shared.material import FILE, dense_model
    from pipeline.statistics.activations import collect

    windows = Calibration.read(inputs.results["calibrate"]).of("block")
    model = dense_model(inputs)
    budget = Budget.now(model, windows.ids.shape[1], config.scoring.memory_fraction, 0)
    statistics = collect(model, windows, budget.rows)
    inputs.listener.on_pass()
    replace(out_dir / FILE.format("statistics"), save(dict(statistics.values)))
    return {"windows": len(windows.ids), "tokens": windows.ids.numel()}


STAGE = Stage("statistics", 2, recipe, run, needs=("calibrate",))
