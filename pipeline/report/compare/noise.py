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


def difference(
    one: Value, one_tasks: Sequence[TaskScore], other: Value, other_tasks: Sequence[TaskScore]
) -> Difference:
    """How far ``one`` lies above ``other``: accuracies in percent, measured alike.

    The tasks are those that the accuracies are the means of.
    """
    points = one.value - other.value
    pairs = _pairs(one_tasks, other_tasks)
    if pairs:
        return Difference(points, *_bootstrap(pairs), "items")
    if one.stderr is None or other.stderr is None:
        return Difference(points, points, points, "values")
    noise = NOISE_ERRORS * math.hypot(one.stderr, other.stderr)
    return Difference(points, points - noise, points + noise, "errors")


Counts = tuple[int, int, int]
"""Of one task: items that only the first had right, only the second, and both or neither."""


def _pairs(one: Sequence[TaskScore], other: Sequence[TaskScore]) -> tuple[Counts, ...]:
    """Of every task; empty where the items of one were not kept, or are not the same."""
    found = []
    by_name = {task.task: task.right_items for task in other}
    for task in one:
        ours, theirs = task.right_items, by_name.get(task.task)
        if not ours or not theirs or len(ours) != len(theirs):
            return ()
        pairs = list(zip(ours, theirs, strict=True))
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
