"""Stage probe: what every step left of the model's perplexity, accuracy, speed and memory.

The prune stage measures while it goes, on the model that it has in memory. This stage fills in what
is missing: after another choice of probe, and for steps that another run took.
"""

import json
from pathlib import Path

from pipeline.config.schema import Config, ProbeConfig
from pipeline.files import Json, replace
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.records import read_steps
from pipeline.pruning.state import PruningState
from pipeline.stages.base import Inputs
from pipeline.stages.measuring import Measurements, What


def is_due(probe: ProbeConfig, steps: int) -> bool:
    """Whether the state after so many steps is measured; 0 steps is the dense model."""
    return probe.every > 0 and steps % probe.every == 0


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``records.jsonl``: the dense model's record (step -1), then those of the steps."""
    measurements = Measurements(config, inputs, What.of_probe(config))
    steps = read_steps(inputs.results["prune"] / "steps.jsonl")
    state = PruningState.dense(shape_from_config(inputs.source.config))
    records = {-1: measurements.of(state)}
    inputs.listener.on_dense(records[-1])
    for step in steps:
        state = state.without(step.chosen)
        last = step.step == len(steps) - 1
        record = measurements.of(state) if last or is_due(config.probe, step.step + 1) else None
        if record:
            records[step.step] = record
        inputs.listener.on_step(step, record)
    lines = [json.dumps({"step": number, **r.to_json()}) + "\n" for number, r in records.items()]
    replace(out_dir / "records.jsonl", "".join(lines))
    return {"records": len(records)}
