"""SLEB: whole layers, greedily by loss, never the first or the last (arXiv 2402.09025).

The published code adds up the losses of windows of equal length, which orders candidates as the
perplexity does that is taken here. The layers of which it never tries any are the first and the
last that are left: as they never go, they are those of the dense model.
"""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Criterion
from pipeline.criteria.perplexity import Perplexity
from pipeline.methods.base import Method
from pipeline.methods.sections import KeptLayersConfig
from pipeline.pruning.phases import Phase

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class SlebConfig(KeptLayersConfig):
    """Layers, greedily by perplexity (arXiv 2402.09025)."""


class Sleb(Method[SlebConfig]):
    """In every step the layer without which perplexity is lowest."""

    name = "sleb"
    section = SlebConfig
    reach_depends_on = "prune.keep_first and prune.keep_last"

    def phases(self, settings: SlebConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Layers between those that are kept, down to the target."""
        return (settings.layers_between,)

    def criterion(self, settings: SlebConfig) -> Criterion:  # noqa: ARG002
        """Perplexity."""
        return Perplexity()


METHOD = Sleb()
