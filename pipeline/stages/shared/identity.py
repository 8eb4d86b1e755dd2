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
from pipeline.stages.shared.phases import criterion_of, needs_windows, order_of, stored_order_of

DECISION_VERSION = 1
"""Raised by hand when the same settings would decide differently."""


def of_dense(config: Config, weights: str) -> dict[str, Any]:
    """The dense model as its files have it; ``weights`` is a digest."""
    model = config.model
    return {
        "weights": weights,
        "dtype": model.dtype,
        "device": model.device,
        "attn_implementation": model.attn_implementation,
    }


def of_model(config: Config, weights: str, order: str | None) -> dict[str, Any]:
    """The dense model as it is scored and measured: with its channels in order.

    ``order`` stands for an order that is stored with the run; None where that is not known.
    """
    stored = stored_order_of(config)
    reorder = {"order": stored.name, "is": order} if stored else order_of(config) is not None
    return {**of_dense(config, weights), "weight_reorder": reorder}


def of_decisions(config: Config) -> dict[str, Any]:
    """How a step is decided, beside the model and what the criterion asks for."""
    choice = method_of(config.prune).choice
    return {
        "decision_version": DECISION_VERSION,
        **criterion_of(config).identity(config),
        **({} if choice == GREEDY else {"choice": choice.name}),
    }


def of_trajectory(
    config: Config,
    weights: str,
    calibration: str,
    order: str | None,
    phase: Phase,
    start: PruningState,
) -> dict[str, Any]:
    """What a trajectory is found by; ``weights``, ``calibration`` and ``order`` are digests.

    The calibration counts where anything is made of it, the order where one is stored.
    """
    needed = {"calibration": calibration} if needs_windows(config) else {}
    return {
        **of_model(config, weights, order),
        **of_decisions(config),
        **needed,
        **phase.identity(),
        "start": start.identity(),
    }


def of_evaluation(
    config: Config, weights: str, order: str | None, text: str, measure: str
) -> dict[str, Any]:
    """What evaluations of a model's states are found by; ``text`` is the digest of the windows."""
    return {
        **of_model(config, weights, order),
        "decision_version": DECISION_VERSION,
        "measure": measure,
        "text": text,
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
