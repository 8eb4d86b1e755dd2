"""Relative magnitude: the layers that add least to the hidden states (arXiv 2312.09299).

A baseline that collapses on many models; ShortGPT, BlockPruner and MultiPruner compare with it.
"""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Criterion
from pipeline.criteria.relative_magnitude import relative_magnitude
from pipeline.methods.base import Method
from pipeline.methods.sections import WholeConfig
from pipeline.pruning.choice import ONE_SHOT
from pipeline.pruning.phases import Phase

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class RelativeMagnitudeConfig(WholeConfig):
    """Layers by relative magnitude, in one shot (arXiv 2312.09299)."""


class RelativeMagnitude(Method[RelativeMagnitudeConfig]):
    """Layers, or blocks, in the order of what they add in the dense model."""

    name = "relative_magnitude"
    section = RelativeMagnitudeConfig
    choice = ONE_SHOT

    def phases(self, settings: RelativeMagnitudeConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Layers or blocks, down to the target."""
        return (settings.phase,)

    def criterion(self, settings: RelativeMagnitudeConfig) -> Criterion:  # noqa: ARG002
        """Relative magnitude."""
        return relative_magnitude()

    def unusual(self, settings: RelativeMagnitudeConfig) -> list[str]:
        """Blocks instead of layers."""
        return ["blocks"] if settings.units == "blocks" else []


METHOD = RelativeMagnitude()
