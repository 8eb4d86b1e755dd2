"""FinerCut: blocks, greedily by what happens to the model's output (arXiv 2405.18218).

Of the distances that its paper compares, the Jensen-Shannon divergence of the next-token
distributions is taken.
"""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Criterion
from pipeline.criteria.divergence import Divergence
from pipeline.methods.base import Method
from pipeline.pruning.phases import Phase
from pipeline.pruning.units import BLOCKS
from pipeline.settings.core import PruneConfig

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class FinerCutConfig(PruneConfig):
    """Blocks, greedily by divergence from the dense model's output (arXiv 2405.18218)."""


class FinerCut(Method[FinerCutConfig]):
    """In every step the block without which the output stays nearest to the dense model's."""

    name = "finercut"
    section = FinerCutConfig

    def phases(self, settings: FinerCutConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Blocks, down to the target."""
        return (Phase("blocks", BLOCKS, settings.target_ratio),)

    def criterion(self, settings: FinerCutConfig) -> Criterion:  # noqa: ARG002
        """Divergence."""
        return Divergence()


METHOD = FinerCut()
