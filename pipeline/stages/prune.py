"""Stage prune: walk the dimensions of the method down to the target ratio."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import DamagedError, StageError
from pipeline.files import Json, encode, read_json, replace
from pipeline.methods import method_of
from pipeline.pruning.records import StepRecord, read_steps, to_jsonl
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.probe import ProbeConfig
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import MATERIAL, needs_windows, phases_of

SEARCH = "search.json"
"""What a search after the phases came to, generation by generation."""
UNREACHED = "cannot be reached"
"""In the message where the target is too high."""


def decisions_recipe(planning: Planning) -> Recipe:
    """What decides the steps in every dimension."""
    text = {"calibrate": planning.key("calibrate")} if needs_windows(planning.config) else {}
    return {**identity.of_decisions(planning.config), "model": planning.model, **text}


def search_recipe(planning: Planning) -> Recipe:
    """What decides the steps from any state."""
    prune = planning.config.prune
    return decisions_recipe(planning) | method_of(prune).units_recipe(prune, planning.source)


def recipe(planning: Planning) -> Recipe | None:
    """What decides the steps, and where they end."""
    if not prunes(planning.config):
        return None
    prune = planning.config.prune
    method = method_of(prune)
    return {
        **search_recipe(planning),
        **method.target_recipe(prune, planning.source),
        **method.search_recipe(prune),
    }


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``pruning_config.json`` and ``steps.jsonl``. ``StageError``: target out of reach.

    Of a method that searches after its phases also ``search.json``.
    """
    from pipeline.stages.shared.descent import descend
    from pipeline.stages.shared.searching import searched, tell

    steps = list(descend(config, inputs, phases_of(config, inputs.source)))
    search = method_of(config.prune).search(config.prune)
    if search is None or search.start is None:
        _check_target(config, inputs, steps)
    facts = {}
    if search:
        came_to = searched(config, inputs, search, steps)
        steps = list(came_to.steps)
        tell(config, inputs, steps)
        replace(out_dir / SEARCH, encode(came_to.shown))
        facts = {"search": {name: came_to.shown[name] for name in ("start", "found")}}
    state = _end_of(inputs, steps)
    replace(out_dir / "steps.jsonl", to_jsonl(step for step, _ in steps))
    replace(
        out_dir / "pruning_config.json",
        encode(state.to_pruning_config(inputs.live.experts(state.shape))),
    )
    return {
        "steps": len(steps),
        "ratio_percent": state.ratio_percent,
        "params": state.params,
        "total_params": state.shape.total_params,
        **facts,
    }


def _end_of(inputs: Inputs, steps: Sequence[tuple[StepRecord, PruningState]]) -> PruningState:
    """The state after the last step."""
    return steps[-1][1] if steps else PruningState.dense(inputs.source.shape)


def _check_target(
    config: Config, inputs: Inputs, steps: Sequence[tuple[StepRecord, PruningState]]
) -> None:
    """Raise ``StageError`` where the steps do not come to the target."""
    ratio = _end_of(inputs, steps).ratio_percent
    if ratio < config.prune.target_ratio:
        reached = math.floor(ratio * 100) / 100
        raise StageError(
            f"prune.target_ratio={config.prune.target_ratio:g} {UNREACHED}: with "
            f"{method_of(config.prune).reach_depends_on} at most {reached:.2f} % can go. The "
            f"{len(steps)} steps are kept; a target up to {reached:.2f} reuses them"
        )


def replay(config: Config, inputs: Inputs) -> None:
    """Tell of the steps, unless ``probe`` tells of them and of what it measured."""
    if not config.of(ProbeConfig).every:
        for step in read_steps(inputs.results["prune"] / "steps.jsonl"):
            inputs.listener.on_step(step, None)


def check(folder: Path, result: Json) -> None:
    """All steps are there, and lead to where the result says."""
    steps = read_steps(folder / "steps.jsonl")
    reached = (len(steps), steps[-1].params if steps else result["total_params"])
    if reached != (result["steps"], result["params"]):
        raise DamagedError(
            folder / "steps.jsonl", f"it has {len(steps)} steps of {result['steps']}"
        )
    read_json(folder / "pruning_config.json")


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """After the dimensions that the run shares with others."""
    dimensions = [phase.dimension for phase in phases_of(planning.config, planning.source)]
    shared = [name for name in dimensions if name in planning.planned]
    yield from planning.one(stage, [*stage.needs, *shared[-1:]])


STAGE = Stage(
    "prune", 40, recipe, run, needs=MATERIAL, plan=plan,
    publishes=("pruning_config.json",), may_publish=(SEARCH,), tells_steps=True, replay=replay,
    check=check, is_main=True,
)  # fmt: skip
