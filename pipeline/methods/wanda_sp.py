"""Wanda-sp: channels and heads by Wanda's score, the same share of every block.

The structured form of Wanda (arXiv 2306.11695) in FLAP's code. That code feeds every layer with the
output of the pruned ones before it; here all statistics are the dense model's, of one pass that
other methods share.
"""

from pipeline.methods.widths import WidthsConfig, WidthsMethod
from pipeline.orders.base import Order
from pipeline.orders.wanda import WANDA


class WandaSpConfig(WidthsConfig):
    """Channels and heads by Wanda's score, the same share of every block."""


class WandaSp(WidthsMethod[WandaSpConfig]):
    """All blocks lose the same share: the channels and heads with the lowest scores."""

    name = "wanda_sp"
    section = WandaSpConfig

    def order(self, settings: WandaSpConfig) -> Order:  # noqa: ARG002
        """Wanda's."""
        return WANDA


METHOD = WandaSp()
