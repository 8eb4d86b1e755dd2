"""Stages that only sweeps have: a dimension that several runs share, pruned before them.

Each walks one dimension, and is called after it, as far as any of the runs goes, so that each run
finds its steps on disk.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import Json
from pipeline.pruning.phases import Phase
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe, Stage
from pipeline.stages.probe import probe_recipe
from pipeline.stages.prune import decisions_recipe
from pipeline.stages.shared.phases import MATERIAL, phases_of

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


def recipe(_planning: Planning) -> Recipe | None:
    """There is one for each dimension; see ``recipe_of``."""
    return None


def recipe_of(planning: Planning, dimension: str, to: float) -> Recipe:
    """What decides the steps of a dimension up to ``to``, in percent removed."""
    before, phase = _up_to(planning.config, planning.source, dimension)
    identity = phase.identity()
    del identity["dimension"]  # the stage is called after it
    return decisions_recipe(planning) | {
        "probe": probe_recipe(planning),
        "from": [[*each.identity().values(), each.end_percent] for each in before],
        "to": to,
        **identity,
    }


def _up_to(config: Config, source: "ModelSource", dimension: str) -> tuple[list[Phase], Phase]:
    """The phases before a dimension, and its own."""
    phases = phases_of(config, source)
    before = list(takewhile(lambda phase: phase.dimension != dimension, phases))
    return before, phases[len(before)]


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """One for each dimension that the run shares with others, each after the one before."""
    last: tuple[PlannedStage, ...] = ()
    for dimension in [phase.dimension for phase in phases_of(planning.config, planning.source)]:
        if dimension in planning.reach:
            recipe = recipe_of(planning, dimension, planning.reach[dimension])
            needs = (*planning.those(MATERIAL), *last)
            last = (PlannedStage(stage, dimension, recipe, needs),)
            yield from last


def run(config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Walk the dimension, after the dimensions before it.

    A dimension that runs out of candidates ends earlier.
    """
    from pipeline.stages.shared.descent import descend

    before, phase = _up_to(config, inputs.source, inputs.stage.name)
    longest = replace(phase, end_percent=inputs.stage.recipe["to"])
    steps, ratio = 0, 0.0
    for record, state in descend(config, inputs, [*before, longest]):
        steps, ratio = record.step + 1, state.ratio_percent
    return {"steps": steps, "ratio_percent": ratio}


STAGE = Stage("walk", 30, recipe, run, plan=plan, tells_steps=True, resources="prune")
