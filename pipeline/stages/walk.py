"""Stages that only sweeps have: a dimension that several runs share, pruned before them.

Each walks one dimension, and is called after it, as far as any of the runs goes, so that each run
finds its steps on disk.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.files import Json
from pipeline.pruning.state import Dimension
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe, Stage
from pipeline.stages.probe import probe_recipe
from pipeline.stages.prune import decisions_recipe
from pipeline.stages.shared.phases import ends_of, group_size_of


def recipe(_planning: Planning) -> Recipe | None:
    """There is one for each dimension; see ``recipe_of``."""
    return None


def recipe_of(planning: Planning, dimension: Dimension, to: float) -> Recipe:
    """What decides the steps of a dimension up to ``to``, in percent removed."""
    path: list[list[Any]] = []
    for before, end in ends_of(planning.config).items():
        if before == dimension:
            break
        path.append([before, group_size_of(planning.config, before), end])
    return decisions_recipe(planning) | {
        "probe": probe_recipe(planning),
        "from": path,
        "to": to,
        "group_size": group_size_of(planning.config, dimension),
    }


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """One for each dimension that the run shares with others, each after the one before."""
    last: tuple[PlannedStage, ...] = ()
    for dimension in ends_of(planning.config):
        if dimension in planning.reach:
            recipe = recipe_of(planning, dimension, planning.reach[dimension])
            needs = (*planning.those(["calibrate"]), *last)
            last = (PlannedStage(stage, dimension, recipe, needs),)
            yield from last


def run(config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Walk the dimension, after the dimensions before it.

    A dimension that runs out of candidates ends earlier.
    """
    from pipeline.stages.shared.descent import descend

    ends: dict[Dimension, float] = {}
    for dimension, end in ends_of(config).items():
        if dimension == inputs.stage.name:
            ends[dimension] = inputs.stage.recipe["to"]
            break
        ends[dimension] = end
    steps, ratio = 0, 0.0
    for row, state in descend(config, inputs, ends):
        steps, ratio = row.step + 1, state.ratio_percent
    return {"steps": steps, "ratio_percent": ratio}


STAGE = Stage("walk", 30, recipe, run, plan=plan, tells_steps=True, resources="prune")
