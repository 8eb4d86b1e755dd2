"""The pruned model as the techniques of recovery left it, from what their stages wrote."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DamagedError
from pipeline.files import read_object

if TYPE_CHECKING:
    from pipeline.models.loading import LiveModel
    from pipeline.models.variants import Variant
    from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe

VALUES, FACTS = "weights.safetensors", "recovery.json"
"""In the folder of a stage that recovers: the values that differ from the cut model's weights, and
what became of the model."""


def recoveries(planning: "Planning") -> tuple["PlannedStage", ...]:
    """The stages of a plan that change the weights of the pruned model, in their order."""
    return tuple(each for each in planning.planned.values() if each.stage.recovers)


def recovered_recipe(planning: "Planning") -> "Recipe":
    """What stands for the recovered model in a recipe; nothing where none is planned."""
    done = recoveries(planning)
    return {"recovered": done[-1].key} if done else {}


def is_recovered(inputs: "Inputs") -> bool:
    """Whether the stage is given a recovered model."""
    return any(each.stage.recovers for each in inputs.stage.needs)


def recovered(inputs: "Inputs", cut: "Variant") -> "Variant":
    """``cut`` after all the recoveries that the stage is given. Raises ``DamagedError``."""
    done = [inputs.results[each.name] for each in inputs.stage.needs if each.stage.recovers]
    return after(inputs.live, cut, done)


def after(live: "LiveModel", cut: "Variant", folders: Iterable[Path]) -> "Variant":
    """``cut`` after the recoveries that wrote ``folders``, in their order."""
    variant = cut
    for folder in folders:
        path = folder / FACTS
        facts = read_object(path) or {}
        how, digest = facts.get("becomes"), facts.get("weights")
        if not isinstance(how, str) or not isinstance(digest, str):
            raise DamagedError(path, "it does not say what became of the model")
        variant = live.changed(how, variant, folder / VALUES, digest)
    return variant
