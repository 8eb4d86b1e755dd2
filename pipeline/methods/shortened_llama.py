"""Shortened LLaMA: layers in one shot, never the first four or the last two (arXiv 2402.02834).

Its code keeps those layers under every criterion, and so do the defaults here.
"""

from typing import TYPE_CHECKING, Literal

from pipeline.criteria.base import Criterion
from pipeline.criteria.magnitude import magnitude
from pipeline.criteria.perplexity import Perplexity
from pipeline.criteria.taylor import taylor
from pipeline.methods.base import Method
from pipeline.methods.sections import KeptLayersConfig
from pipeline.pruning.choice import ONE_SHOT
from pipeline.pruning.phases import Phase

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

CRITERIA = {"ppl": Perplexity, "taylor": taylor, "magnitude": magnitude}
"""By ``prune.criterion``."""


class ShortenedLlamaConfig(KeptLayersConfig):
    """Layers in one shot, by one of three criteria (arXiv 2402.02834)."""

    criterion: Literal["ppl", "taylor", "magnitude"] = "ppl"
    """ppl: perplexity without the layer. taylor: the sum of abs(weight x gradient) over its
    weights. magnitude: the sum of abs(weight)."""


class ShortenedLlama(Method[ShortenedLlamaConfig]):
    """Layers in the order of their scores in the dense model."""

    name = "shortened_llama"
    section = ShortenedLlamaConfig
    reach_depends_on = "prune.keep_first and prune.keep_last"
    choice = ONE_SHOT

    def phases(self, settings: ShortenedLlamaConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Layers between those that are kept, down to the target."""
        return (settings.layers_between,)

    def criterion(self, settings: ShortenedLlamaConfig) -> Criterion:
        """As configured."""
        return CRITERIA[settings.criterion]()

    def unusual(self, settings: ShortenedLlamaConfig) -> list[str]:
        """The criterion."""
        return [settings.criterion]


METHOD = ShortenedLlama()
