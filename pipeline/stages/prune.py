"""Stage prune: walk the dimensions of the method down to the target ratio."""

import math
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.errors import StageError
from pipeline.files import Json, encode, replace
from pipeline.methods import method_of
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.records import to_jsonl
from pipeline.pruning.state import PruningState
from pipeline.stages.base import Inputs
from pipeline.stages.descent import descend


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``pruning_config.json`` and ``steps.jsonl``. ``StageError``: target out of reach."""
    method = method_of(config.prune)
    state = PruningState.dense(shape_from_config(inputs.source.config))
    records = []
    for record, after in descend(config, inputs, method.phases(config.prune)):
        records.append(record)
        state = after
    if state.ratio_percent < config.prune.target_ratio:
        reached = math.floor(state.ratio_percent * 100) / 100
        raise StageError(
            f"prune.target_ratio={config.prune.target_ratio:g} cannot be reached: with "
            f"{method.reach_depends_on} at most {reached:.2f} % can go. The {len(records)} "
            f"steps are kept; a target up to {reached:.2f} reuses them"
        )
    replace(out_dir / "steps.jsonl", to_jsonl(records))
    replace(out_dir / "pruning_config.json", encode(state.to_pruning_config()))
    return {
        "steps": len(records),
        "ratio_percent": state.ratio_percent,
        "params": state.params,
        "total_params": state.shape.total_params,
    }
