"""The dimensions that a run is pruned in, and what scores its candidates: as its method says."""

from collections.abc import Sequence

from pipeline.criteria.base import CALIBRATION, Criterion
from pipeline.methods import method_of
from pipeline.pruning.phases import STANDARD, Phase
from pipeline.settings.core import Config


def phases_of(config: Config) -> tuple[Phase, ...]:
    """The dimensions of a run in its order, each with its end."""
    return method_of(config.prune).phases(config.prune)


def in_common_order(phases: Sequence[Phase]) -> list[Phase]:
    """The same for runs that differ in nothing but the order of their dimensions."""
    standard = list(STANDARD)
    return sorted(
        phases,
        key=lambda phase: (
            standard.index(phase.dimension) if phase.dimension in standard else len(standard)
        ),
    )


def needs_windows(config: Config) -> bool:
    """Whether candidates are scored on calibration text."""
    return CALIBRATION in criterion_of(config).needs


def criterion_of(config: Config) -> Criterion:
    """What scores the candidates of a run."""
    return method_of(config.prune).criterion(config.prune)


def is_reordered(config: Config) -> bool:
    """Whether the most important channels and heads are put first before anything goes."""
    return method_of(config.prune).weight_reorder(config.prune)
