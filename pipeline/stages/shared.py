"""Stages that only sweeps have: what several of their runs need, done before them.

``blocks``, ``mlp_channels`` and ``heads`` walk one dimension as far as any of the runs goes, so
that each finds its steps on disk; ``dense`` evaluates the dense model.
"""

from pathlib import Path

from pipeline.config.schema import Config
from pipeline.files import Json
from pipeline.pruning.state import Dimension, PruningState
from pipeline.stages.base import Inputs
from pipeline.stages.descent import descend, ends_of
from pipeline.stages.measuring import Measurements, What


def walk(dimension: Dimension, config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Walk ``dimension`` to its ``sweep.reach``, after the dimensions before it.

    A dimension that runs out of candidates ends earlier.
    """
    own = ends_of(config)
    before = list(own)[: list(own).index(dimension)]
    ends = {each: own[each] for each in before} | {dimension: config.sweep.reach[dimension]}
    steps, ratio = 0, 0.0
    for row, state in descend(config, inputs, ends):
        steps, ratio = row.step + 1, state.ratio_percent
    return {"steps": steps, "ratio_percent": ratio}


def dense(config: Config, inputs: Inputs, _out_dir: Path) -> Json:
    """Evaluate the dense model: the baseline of every run."""
    state = PruningState.dense(inputs.source.shape)
    record = Measurements(config, inputs, What.of_evaluation(config)).of(state)
    return {"accuracy": record.accuracy, "ppl": record.ppl}
