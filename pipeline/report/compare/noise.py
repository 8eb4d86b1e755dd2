"""Whether two accuracies differ by more than their noise: by the same items, else by errors."""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.measure.paired import paired_ends
from pipeline.measure.record import TaskScore
from pipeline.report.compare.records import Value

NOISE_ERRORS = 2.0
"""Where items were not kept: so many standard errors of a difference are its noise."""

KnownBy = Literal["items", "errors", "values"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One accuracy minus another, in points."""

    points: float
    low: float
    """With ``high``: from where to where the true difference is, with 95 %."""
    high: float
    known_by: KnownBy
    """How sure it is: by the same items, by standard errors, or not at all (values alone)."""

    @property
    def is_noise(self) -> bool:
        """Whether there may be no difference."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class Score:
    """An accuracy in percent, and the tasks that it is the mean of."""

    value: Value
    tasks: tuple[TaskScore, ...]


def difference(one: Score, other: Score) -> Difference:
    """How far ``one`` lies above ``other``, where both were measured alike."""
    points = one.value.value - other.value.value
    if ends := paired_ends(one.tasks, other.tasks):
        return Difference(points, *ends, "items")
    if one.value.stderr is None or other.value.stderr is None:
        return Difference(points, points, points, "values")
    noise = NOISE_ERRORS * math.hypot(one.value.stderr, other.value.stderr)
    return Difference(points, points - noise, points + noise, "errors")
