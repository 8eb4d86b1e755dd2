"""What decides a result, as plain JSON: the one place where identities are put together.

Never paths, partitions, ranks, batch sizes or library versions.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.methods import method_of
from pipeline.models.variants import Variant
from pipeline.pruning.choice import GREEDY
from pipeline.pruning.phases import Phase
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.shared.phases import criterion_of, is_reordered, needs_windows

DECISION_VERSION = 1
"""Raised by hand when the same settings would decide differently."""


def of_model(config: Config, weights: str) -> dict[str, Any]:
    """The dense model as it is scored and measured; ``weights`` is a digest."""
    model = config.model
    return {
        "weights": weights,
        "weight_reorder": is_reordered(config),
        "dtype": model.dtype,
        "device": model.device,
        "attn_implementation": model.attn_implementation,
    }


def of_decisions(config: Config) -> dict[str, Any]:
    """How a step is decided, beside the model and what the criterion asks for."""
    choice = method_of(config.prune).choice
    return {
        "decision_version": DECISION_VERSION,
        **criterion_of(config).identity(config),
        **({} if choice == GREEDY else {"choice": choice.name}),
    }


def of_trajectory(
    config: Config, weights: str, calibration: str, phase: Phase, start: PruningState
) -> dict[str, Any]:
    """What a trajectory is found by; ``weights`` and ``calibration`` are digests.

    The calibration counts where the criterion asks for it.
    """
    needed = {"calibration": calibration} if needs_windows(config) else {}
    return {
        **of_model(config, weights),
        **of_decisions(config),
        **needed,
        **phase.identity(),
        "start": start.identity(),
    }


def of_record(
    config: Config, variant: Variant, protocol: Mapping[str, Any], device_name: str
) -> dict[str, Any]:
    """What was measured of a variant: what, by which settings, and what it was computed with."""
    model = config.model
    return {
        "variant": variant.identity(),
        "protocol": protocol,
        "dtype": model.dtype,
        "device": [model.device, device_name],
        "attn_implementation": model.attn_implementation,
    }
