"""Stages that only sweeps have: what several of their runs need, done before them.

Those that are called after a dimension walk it as far as any of the runs goes, so that each finds
its steps on disk; ``dense`` evaluates the dense model.
"""

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.files import Json
from pipeline.methods import method_of
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.state import PruningState
from pipeline.stages.base import Inputs
from pipeline.stages.descent import descend
from pipeline.stages.measuring import Measurements, What


def walk(dimension: str, config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Walk ``dimension`` to its ``sweep.reach``, after the dimensions before it.

    A dimension that runs out of candidates ends earlier.
    """
    phases = method_of(config.prune).phases(config.prune)
    before = list(takewhile(lambda phase: phase.dimension != dimension, phases))
    last = replace(phases[len(before)], end_percent=config.sweep.reach[dimension])
    steps, ratio = 0, 0.0
    for record, state in descend(config, inputs, [*before, last]):
        steps, ratio = record.step + 1, state.ratio_percent
    return {"steps": steps, "ratio_percent": ratio}


def dense(config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Evaluate the dense model: the baseline of every run."""
    state = PruningState.dense(shape_from_config(inputs.source.config))
    record = Measurements(config, inputs, What.of_evaluation(config)).of(state)
    return {"accuracy": record.accuracy, "ppl": record.ppl}
