"""FLAP: channels and heads that fluctuate least, wherever they are (arXiv 2312.11983).

Structure AL-AM and metric WIFV of its code: scores of all blocks are compared with one another.
That code weighs a head as much as 170.7 channels, which holds for one shape of model; here
parameters are counted. Its running variance has an error of its own; here it is the variance over
all tokens.
"""

from pipeline.methods.widths import WidthsConfig, WidthsMethod
from pipeline.orders.base import Order
from pipeline.orders.flap import FLAP


class FlapConfig(WidthsConfig):
    """Channels and heads by their fluctuation, the lowest of all blocks (arXiv 2312.11983)."""


class Flap(WidthsMethod[FlapConfig]):
    """One threshold for all blocks: what is below it goes."""

    name = "flap"
    section = FlapConfig
    is_uniform = False

    def order(self, settings: FlapConfig) -> Order:  # noqa: ARG002
        """FLAP's."""
        return FLAP


METHOD = Flap()
