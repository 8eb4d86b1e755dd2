"""The dimensions that a run is pruned in, and what scores its candidates: as its method says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.criteria.base import (
    CALIBRATION,
    GRADIENTS,
    STATISTICS,
    Criterion,
    Need,
)
from pipeline.methods import method_of
from pipeline.orders.base import Order
from pipeline.pruning.phases import STANDARD, Phase
from pipeline.settings.core import Config

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

MATERIAL = ("calibrate", "statistics", "gradients", "order")
"""Stages that make what scores are made of, in their order; a run has those that it needs."""
OF_TEXT = frozenset({CALIBRATION, STATISTICS, GRADIENTS})
"""What is made of calibration text."""


def phases_of(config: Config, source: "ModelSource") -> tuple[Phase, ...]:
    """The dimensions of a run in its order, each with its end."""
    return method_of(config.prune).phases(config.prune, source)


def in_common_order(phases: Sequence[Phase]) -> list[Phase]:
    """The same for runs that differ in nothing but the order of their dimensions."""
    standard = list(STANDARD)
    return sorted(
        phases,
        key=lambda phase: (
            standard.index(phase.dimension) if phase.dimension in standard else len(standard)
        ),
    )


def criterion_of(config: Config) -> Criterion:
    """What scores the candidates of a run."""
    return method_of(config.prune).criterion(config.prune)


def order_of(config: Config) -> Order | None:
    """What channels and heads are put in order by before anything goes."""
    return method_of(config.prune).order(config.prune)


def stored_order_of(config: Config) -> Order | None:
    """The same where it is stored with the run."""
    order = order_of(config)
    return order if order and order.is_stored else None


def needs_of(config: Config) -> frozenset[Need[Any]]:
    """All that the scores of candidates and the order of channels are made of."""
    order = order_of(config)
    return criterion_of(config).needs | (order.needs if order else frozenset())


def needs_windows(config: Config) -> bool:
    """Whether anything is made of calibration text."""
    return bool(needs_of(config) & OF_TEXT)


def windows_of(config: Config, phase: Phase) -> str:
    """The calibration windows that decide a phase: its own, or those of the statistics."""
    return phase.windows if CALIBRATION in criterion_of(config).needs else "block"
