"""Stage prune: walk the three dimensions down to the target ratio."""

import math
from contextlib import closing
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import StageError
from pipeline.files import Json, encode, replace
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.greedy import thresholds
from pipeline.pruning.state import PruningState
from pipeline.stages.base import Inputs, StepRow, to_jsonl
from pipeline.stages.measuring import Measurements, What
from pipeline.stages.probe import is_due
from pipeline.stages.search import Search


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``pruning_config.json`` and ``steps.jsonl``. ``StageError``: target out of reach."""
    search = Search(config, inputs)
    measurements = Measurements(config, inputs, What.of_probe(config))
    state = PruningState.dense(shape_from_config(inputs.source.config))
    if is_due(config.probe, 0):
        inputs.listener.on_dense(measurements.of(state))
    rows: list[StepRow] = []
    for dimension, threshold in thresholds(
        config.prune.target_ratio, config.prune.distribution
    ).items():
        with closing(search.walk(dimension, state)) as steps:
            while state.ratio_percent < threshold and (taken := next(steps, None)):
                state = taken.state
                row = StepRow(
                    step=len(rows),
                    dimension=dimension,
                    chosen=taken.step.chosen,
                    importance=taken.step.importance,
                    ratio_percent=state.ratio_percent,
                    params=state.params,
                    scored=taken.step.scored,
                    source=taken.source,
                    audited=taken.step.audited,
                )
                rows.append(row)
                ends = config.probe.every > 0 and state.ratio_percent >= config.prune.target_ratio
                due = ends or is_due(config.probe, len(rows))
                inputs.listener.on_step(row, measurements.of(state) if due else None)
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
