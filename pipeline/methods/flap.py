"""FLAP: channels and heads that fluctuate least, wherever they are (arXiv 2312.11983).

Structure AL-AM and metric WIFV of its code: scores of all blocks are compared with one another.
That code weighs a head as much as 170.7 channels, which holds for one shape of model; here
parameters are counted. Its running variance has an error of its own; here it is the variance over
all tokens. The biases that make up for what was removed are not counted as parameters.
"""

from typing import TYPE_CHECKING

from pipeline.methods.widths import WidthsConfig, WidthsMethod
from pipeline.orders.base import Order
from pipeline.orders.flap import FLAP

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class FlapConfig(WidthsConfig):
    """Channels and heads by their fluctuation, the lowest of all blocks (arXiv 2312.11983)."""

    bias: bool | None = None
    """Whether biases of the output layers make up for what removed channels gave on average; null:
    where the model's family has such biases."""


class Flap(WidthsMethod[FlapConfig]):
    """One threshold for all blocks: what is below it goes."""

    name = "flap"
    section = FlapConfig
    is_uniform = False

    def order(self, settings: FlapConfig) -> Order:  # noqa: ARG002
        """FLAP's."""
        return FLAP

    def makes_up(self, settings: FlapConfig, source: "ModelSource") -> bool:
        """As configured, where the family has biases."""
        return settings.bias is not False and bool(source.family.bias_flags)

    def unusual(self, settings: FlapConfig) -> list[str]:
        """Without biases."""
        return ["no bias"] if settings.bias is False else []

    def problems(self, settings: FlapConfig, source: "ModelSource") -> list[str]:
        """Biases that the family does not have, too."""
        problems = super().problems(settings, source)
        if settings.bias and not source.family.bias_flags:
            problems.append(
                "prune.bias: true is wrong; allowed is null or false: "
                f"{source.architecture} models have no biases in the layers that give what a block "
                "adds"
            )
        return problems


METHOD = Flap()
