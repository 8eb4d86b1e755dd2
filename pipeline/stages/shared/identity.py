"""What decides a result, as plain JSON: the one place where identities are put together.

Never paths, partitions, ranks, batch sizes or library versions.
"""

from typing import Any

from pipeline.pruning.state import Dimension, PruningState
from pipeline.settings.core import Config
from pipeline.stages.shared.phases import group_size_of

DECISION_VERSION = 1
"""Raised by hand when the same settings would decide differently."""


def of_model(config: Config, weights: str) -> dict[str, Any]:
    """The dense model as it is scored and measured; ``weights`` is a digest."""
    model = config.model
    return {
        "weights": weights,
        "weight_reorder": config.prune.weight_reorder,
        "dtype": model.dtype,
        "device": model.device,
        "attn_implementation": model.attn_implementation,
    }


def of_decisions(config: Config) -> dict[str, Any]:
    """How a step is decided, beside the model and the tokens."""
    return {
        "decision_version": DECISION_VERSION,
        "search": config.prune.search,
        "precision": config.scoring.precision,
    }


def of_trajectory(
    config: Config, weights: str, calibration: str, dimension: Dimension, start: PruningState
) -> dict[str, Any]:
    """What a trajectory is found by; ``weights`` and ``calibration`` are digests."""
    return {
        **of_model(config, weights),
        **of_decisions(config),
        "calibration": calibration,
        "dimension": dimension,
        "group_size": group_size_of(config, dimension),
        "start": start.identity(),
    }
