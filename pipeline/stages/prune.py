"""Stage prune: walk the three dimensions down to the target ratio."""

import math
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.errors import StageError
from pipeline.files import Json, encode, replace
from pipeline.pruning.state import PruningState
from pipeline.stages.base import Inputs, to_jsonl
from pipeline.stages.descent import descend, ends_of


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``pruning_config.json`` and ``steps.jsonl``. ``StageError``: target out of reach."""
    state = PruningState.dense(inputs.source.shape)
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
