"""ShortGPT: the layers that turn the hidden states least, in one shot (arXiv 2403.03853).

Its paper takes the mean over all tokens, which is done here; some re-implementations take the last
token of a window alone.
"""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Criterion
from pipeline.criteria.block_influence import block_influence
from pipeline.methods.base import Method
from pipeline.methods.sections import WholeConfig
from pipeline.pruning.choice import ONE_SHOT
from pipeline.pruning.phases import Phase

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class ShortGptConfig(WholeConfig):
    """Layers by Block Influence, in one shot (arXiv 2403.03853)."""


class ShortGpt(Method[ShortGptConfig]):
    """Layers, or blocks, in the order of their influence in the dense model."""

    name = "shortgpt"
    section = ShortGptConfig
    choice = ONE_SHOT

    def phases(self, settings: ShortGptConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Layers or blocks, down to the target."""
        return (settings.phase,)

    def criterion(self, settings: ShortGptConfig) -> Criterion:  # noqa: ARG002
        """Block Influence."""
        return block_influence()

    def unusual(self, settings: ShortGptConfig) -> list[str]:
        """Blocks instead of layers."""
        return ["blocks"] if settings.units == "blocks" else []


METHOD = ShortGpt()
