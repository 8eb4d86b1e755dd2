"""Stage statistics: one pass of the dense model over the calibration windows for blocks."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline.criteria.base import STATISTICS
from pipeline.settings.core import Config
from pipeline.stages.shared.passes import pass_stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.prunable import PrunableModel
    from pipeline.scoring.perplexity import Windows

VERSION = 1
"""Raised by hand when other numbers would come out."""


def _collected(
    config: Config,
    model: "PrunableModel",
    windows: "Windows",
    on_progress: Callable[[float], None],
) -> "Mapping[str, Tensor]":
    from pipeline.scoring.memory import Budget
    from pipeline.statistics.activations import collect

    budget = Budget.now(model, windows.ids.shape[1], config.scoring.memory_fraction, 0)
    return collect(model, windows, budget.rows, on_progress).values


STAGE = pass_stage("statistics", 2, STATISTICS, VERSION, _collected)
