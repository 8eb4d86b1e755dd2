"""Stage gradients: of the dense model's loss on the calibration windows for blocks."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline.criteria.base import GRADIENTS
from pipeline.settings.core import Config
from pipeline.stages.shared.passes import pass_stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.prunable import PrunableModel
    from pipeline.scoring.perplexity import Windows

VERSION = 1
"""Raised by hand when other numbers would come out."""


def _collected(
    _config: Config,
    model: "PrunableModel",
    windows: "Windows",
    on_progress: Callable[[float], None],
) -> "Mapping[str, Tensor]":
    from pipeline.statistics.gradients import collect

    return collect(model, windows, on_progress).values


STAGE = pass_stage("gradients", 3, GRADIENTS, VERSION, _collected)
