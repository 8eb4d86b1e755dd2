"""Magnitude: channels and heads by the size of their output weights, the same share of every block.

As ``mag_sp`` in FLAP's code: the norm of a column of the output layer, for a head the sum of its.
"""

from typing import Literal

from pipeline.methods.widths import WidthsConfig, WidthsMethod
from pipeline.orders.base import Order
from pipeline.orders.magnitude import of_columns

POWERS = {"l1": 1, "l2": 2}
"""By ``prune.norm``."""


class MagnitudeConfig(WidthsConfig):
    """Channels and heads by their weights alone, the same share of every block."""

    norm: Literal["l1", "l2"] = "l2"
    """Norm of a column of the output layer."""


class Magnitude(WidthsMethod[MagnitudeConfig]):
    """All blocks lose the same share: the channels and heads with the smallest weights."""

    name = "magnitude"
    section = MagnitudeConfig

    def order(self, settings: MagnitudeConfig) -> Order:
        """Norms of columns."""
        return of_columns(POWERS[settings.norm])

    def unusual(self, settings: MagnitudeConfig) -> list[str]:
        """The norm."""
        return [settings.norm]


METHOD = Magnitude()
