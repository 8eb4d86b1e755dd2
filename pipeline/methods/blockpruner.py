"""BlockPruner: blocks, greedily by perplexity (arXiv 2406.10594).

What MultiPruner does in its first dimension, without reordering weights; both share trajectories.
"""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Criterion
from pipeline.criteria.perplexity import Perplexity
from pipeline.methods.base import Method
from pipeline.pruning.phases import Phase
from pipeline.pruning.units import BLOCKS
from pipeline.settings.core import PruneConfig

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class BlockPrunerConfig(PruneConfig):
    """Blocks, greedily by perplexity (arXiv 2406.10594)."""


class BlockPruner(Method[BlockPrunerConfig]):
    """In every step the block without which perplexity is lowest."""

    name = "blockpruner"
    section = BlockPrunerConfig

    def phases(self, settings: BlockPrunerConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Blocks, down to the target."""
        return (Phase("blocks", BLOCKS, settings.target_ratio),)

    def criterion(self, settings: BlockPrunerConfig) -> Criterion:  # noqa: ARG002
        """Perplexity."""
        return Perplexity()


METHOD = BlockPruner()
