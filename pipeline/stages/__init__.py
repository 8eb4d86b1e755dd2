"""Stages: functions ``run(config, inputs, out_dir) -> result`` that know not where they run."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.files import Json
from pipeline.methods import all_dimensions
from pipeline.stages import calibrate, evaluate, probe, prune, score, shared
from pipeline.stages.base import Inputs

StageFunction = Callable[[Config, Inputs, Path], Json]

STAGES: Mapping[str, StageFunction] = {
    "calibrate": calibrate.run,
    "score": score.run,
    "dense": shared.dense,
    **{dimension: partial(shared.walk, dimension) for dimension in all_dimensions()},
    "prune": prune.run,
    "probe": probe.run,
    "evaluate": evaluate.run,
}
