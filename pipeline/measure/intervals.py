"""How sure a measured number is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """The median of repeated measurements, and from where to where the true one may be."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The median of independent values with its interval of 95 %, whatever their distribution.

        Its ends are two of the values themselves: the number of values below the true median is
        binomial (Conover, Practical Nonparametric Statistics, 3.2). Fewer than six values are too
        few for 95 %; their smallest and largest are taken.
        """
        ordered = sorted(values)
        skipped = _skipped(len(ordered))
        return cls(median(ordered), ordered[skipped], ordered[-1 - skipped])

    def over(self, other: "Interval") -> "Interval":
        """The ratio of two positive numbers that were measured apart: as wide as it can be."""
        return Interval(self.median / other.median, self.low / other.high, self.high / other.low)

    def widened(self, share: float) -> "Interval":
        """With a further doubt of a share of it, up and down."""
        return Interval(self.median, self.low * (1 - share), self.high * (1 + share))

    def times(self, factor: float) -> "Interval":
        """In another unit."""
        return Interval(self.median * factor, self.low * factor, self.high * factor)

    @property
    def ends(self) -> tuple[float, float]:
        """From where to where."""
        return self.low, self.high

    def contains(self, value: float) -> bool:
        """Whether the true number may be ``value``."""
        return self.low <= value <= self.high


def _skipped(count: int) -> int:
    """How many of ``count`` ordered values lie outside the interval at either end."""
    most_outside = (1 - CONFIDENCE) / 2
    skipped, outside = 0, 1 / (1 << count)
    while outside <= most_outside and 2 * (skipped + 1) < count:
        skipped += 1
        outside += math.comb(count, skipped) / (1 << count)
    return max(skipped - 1, 0)
