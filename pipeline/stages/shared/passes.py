"""Stages that go over the calibration windows for blocks once, with the dense model.

Made once for a model and a text, whichever methods ask for it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.criteria.base import Need
from pipeline.files import Json, replace
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import needs_of

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.prunable import PrunableModel
    from pipeline.scoring.perplexity import Windows

Collect = Callable[
    [Config, "PrunableModel", "Windows", Callable[[float], None]], "Mapping[str, Tensor]"
]
"""The numbers of a dense model, by their names; told is each share of the pass that is done."""


def pass_stage(name: str, order: int, need: Need[Any], version: int, collect: Collect) -> Stage:
    """The stage that supplies ``need``; ``version`` is raised when other numbers would come out."""

    def recipe(planning: Planning) -> Recipe | None:
        """The dense model and the text; nothing where nobody asks for it."""
        config = planning.config
        if not prunes(config) or need not in needs_of(config):
            return None
        model = identity.of_dense(config, planning.weights)
        return {"version": version, "model": model, "calibrate": planning.key("calibrate")}

    def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
        """Write the numbers into a file of the stage's name."""
        from safetensors.torch import save

        from pipeline.stages.shared.calibration import Calibration
        from pipeline.stages.shared.material import FILE, dense_model

        windows = Calibration.read(inputs.results["calibrate"]).of("block")
        tokens, kind = windows.ids.numel(), f"{name} of the dense model"
        inputs.listener.on_ahead({kind: tokens})
        model = dense_model(inputs)
        inputs.listener.on_doing(kind)
        values = collect(
            config, model, windows, lambda share: inputs.listener.on_progress(kind, share * tokens)
        )
        inputs.listener.on_pass()
        replace(out_dir / FILE.format(name), save(dict(values)))
        return {"windows": len(windows.ids), "tokens": windows.ids.numel()}

    return Stage(name, order, recipe, run, needs=("calibrate",))
