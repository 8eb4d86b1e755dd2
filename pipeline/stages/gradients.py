"""Stage gradients: of the dense model's loss on the calibration windows for blocks.

Made once for a model and a text, whichever methods ask for it.
"""

from pathlib import Path

from pipeline.criteria.base import GRADIENTS
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
    if not prunes(config) or GRADIENTS not in needs_of(config):
        return None
    model = identity.of_dense(config, planning.weights)
    return {"version": VERSION, "model": model, "calibrate": planning.key("calibrate")}


def run(_config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``gradients.safetensors``."""
    from safetensors.torch import save

    from pipeline.stages.shared.calibration import Calibration
    from pipeline.stages.shared.material import FILE, dense_model
    from pipeline.statistics.gradients import collect

    windows = Calibration.read(inputs.results["calibrate"]).of("block")
    gradients = collect(dense_model(inputs), windows)
    inputs.listener.on_pass()
    replace(out_dir / FILE.format("gradients"), save(dict(gradients.values)))
    return {"windows": len(windows.ids), "tokens": windows.ids.numel()}


STAGE = Stage("gradients", 3, recipe, run, needs=("calibrate",))
