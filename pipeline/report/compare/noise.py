"""Whether two accuracies differ by more than their noise: a paired bootstrap over the same items.

Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile intervals); paired as
in Koehn, Statistical Significance Tests for Machine Translation Evaluation (2004).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pipeline.measure.record import TaskScore
from pipeline.report.compare.records import Value

DRAWS = 10_000
SEED = 0
ENDS_PERCENT = (2.5, 97.5)
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


def known_by(one: Score, other: Score) -> KnownBy:
    """How the noise of the difference of two accuracies that were measured alike can be told."""
    theirs = {task.task: len(task.right_items or "") for task in other.tasks}
    ours = {task.task: len(task.right_items or "") for task in one.tasks}
    if ours and ours == theirs and all(ours.values()):
        return "items"
    is_known = one.value.stderr is not None and other.value.stderr is not None
    return "errors" if is_known else "values"


def difference(one: Score, other: Score) -> Difference:
    """How far ``one`` lies above ``other``, where both were measured alike."""
    points = one.value.value - other.value.value
    way = known_by(one, other)
    if way == "items":
        return Difference(points, *_bootstrap(_pairs(one.tasks, other.tasks)), way)
    noise = 0.0
    if way == "errors":
        noise = NOISE_ERRORS * math.hypot(one.value.stderr or 0.0, other.value.stderr or 0.0)
    return Difference(points, points - noise, points + noise, way)


Counts = tuple[int, int, int]
"""Of one task: items that only the first had right, only the second, and both or neither."""


def _pairs(one: Sequence[TaskScore], other: Sequence[TaskScore]) -> tuple[Counts, ...]:
    """Of every task."""
    found = []
    by_name = {task.task: task.right_items or "" for task in other}
    for task in one:
        pairs = list(zip(task.right_items or "", by_name[task.task], strict=True))
        won, lost = pairs.count(("1", "0")), pairs.count(("0", "1"))
        found.append((won, lost, len(pairs) - won - lost))
    return tuple(found)


@lru_cache(maxsize=4096)
def _bootstrap(pairs: tuple[Counts, ...]) -> tuple[float, float]:
    """The interval of the mean difference over tasks, in points.

    Items are drawn with replacement within each task, the same ones for both. Only how many of a
    draw are won, lost or equal counts, and that is multinomial: it is drawn at once.
    """
    import numpy as np

    generator = np.random.default_rng(SEED)
    total = np.zeros(DRAWS)
    for counts in pairs:
        items = sum(counts)
        drawn = generator.multinomial(items, np.array(counts) / items, size=DRAWS)
        total += (drawn[:, 0] - drawn[:, 1]) / items
    low, high = np.percentile(total / len(pairs) * 100, ENDS_PERCENT)
    return float(low), float(high)
