"""From values to places on an axis, and where its ticks are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROOM = 0.06
"""Left free on both sides of the values, as a share of their range."""
SMALLEST = 1e-4
"""Smaller values have an exponent."""
LONG_RANGE = 1000
"""Axes over so many times have ticks at the powers of ten only."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps ``low`` to ``start`` and ``high`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self, wanted: int, whole: bool = False) -> list[float]:
        """Round values between ``low`` and ``high``, about as many as ``wanted``."""
        if self.logarithmic:
            return list(_logarithmic_ticks(self.low, self.high))
        return list(_linear_ticks(self.low, self.high, wanted, whole))


def extent(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    """The range of the values, with some room around."""
    low, high = min(values), max(values)
    if logarithmic:
        factor = (high / low) ** ROOM
        return low / factor, high * factor
    room = (high - low or abs(high) or 1) * ROOM
    return low - room, high + room


def _linear_ticks(low: float, high: float, wanted: int, whole: bool) -> Iterator[float]:
    """The round step that comes nearest to so many ticks."""
    length = (high - low) or 1
    power = 10 ** math.floor(math.log10(length / wanted))
    steps = [factor * power for factor in (1, 2, 2.5, 5, 10)]
    if whole:
        steps = [step for step in steps if step >= 1 and float(step).is_integer()] or [1]
    step = min(steps, key=lambda step: abs(length / step - wanted))
    for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield number * step


def _logarithmic_ticks(low: float, high: float) -> Iterator[float]:
    factors = (1,) if high / low > LONG_RANGE else (1, 2, 5)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (f * 10.0**power for f in factors if low <= f * 10.0**power <= high)


def tick_text(value: float) -> str:
    """With thousands separators and as few digits as it needs."""
    if value and abs(value) < SMALLEST:
        return f"{value:.3g}".replace("-", "−")  # noqa: RUF001 (as wide as a plus sign)
    rounded = float(f"{value:.6g}")
    text = f"{rounded:,.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "−")  # noqa: RUF001 (as wide as a plus sign)
