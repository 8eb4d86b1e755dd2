"""Stage prune: walk the three dimensions down to the target ratio."""

import math
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import StageError
from pipeline.files import Json, encode, replace
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.base import (
    Inputs,
    PlannedStage,
    Planning,
    Recipe,
    Stage,
    read_rows,
    to_jsonl,
)
from pipeline.stages.probe import ProbeConfig
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import ends_of


def decisions_recipe(planning: Planning) -> Recipe:
    """What decides the steps in every dimension."""
    return {
        **identity.of_decisions(planning.config),
        "model": planning.model,
        "calibrate": planning.key("calibrate"),
    }


def search_recipe(planning: Planning) -> Recipe:
    """What decides the steps from any state."""
    prune = planning.config.prune
    return decisions_recipe(planning) | {
        "mlp_group_size": prune.mlp_group_size,
        "attn_group_size": prune.attn_group_size,
    }


def recipe(planning: Planning) -> Recipe | None:
    """What decides the steps, and where they end."""
    if "calibrate" not in planning.planned:
        return None
    prune = planning.config.prune
    return search_recipe(planning) | {
        "target_ratio": prune.target_ratio,
        "distribution": [share / sum(prune.distribution) for share in prune.distribution],
        "order": list(prune.order),
    }


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``pruning_config.json`` and ``steps.jsonl``. ``StageError``: target out of reach."""
    from pipeline.models.prunable import shape_from_config
    from pipeline.stages.shared.descent import descend

    state = PruningState.dense(shape_from_config(inputs.source.config))
    rows = []
    for row, after in descend(config, inputs, ends_of(config)):
        rows.append(row)
        state = after
    if state.ratio_percent < config.prune.target_ratio:
        reached = math.floor(state.ratio_percent * 100) / 100
        raise StageError(
            f"prune.target_ratio={config.prune.target_ratio:g} cannot be reached: with this "
            f"distribution and these group sizes at most {reached:.2f} % can go. The {len(rows)} "
            f"steps are kept; a target up to {reached:.2f} reuses them"
        )
    replace(out_dir / "steps.jsonl", to_jsonl(rows))
    replace(out_dir / "pruning_config.json", encode(state.to_pruning_config()))
    return {
        "steps": len(rows),
        "ratio_percent": state.ratio_percent,
        "params": state.params,
        "total_params": state.shape.total_params,
    }


def replay(config: Config, inputs: Inputs) -> None:
    """Tell of the steps, unless ``probe`` tells of them and of what it measured."""
    if not config.of(ProbeConfig).every:
        for row in read_rows(inputs.results["prune"] / "steps.jsonl"):
            inputs.listener.on_step(row, None)


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """After the dimensions that the run shares with others."""
    shared = [name for name in ends_of(planning.config) if name in planning.planned]
    yield from planning.one(stage, [*stage.needs, *shared[-1:]])


STAGE = Stage(
    "prune", 40, recipe, run, needs=("calibrate",), plan=plan,
    publishes=("pruning_config.json",), tells_steps=True, replay=replay, is_main=True,
)  # fmt: skip
