"""How sure the difference of two accuracies is: a paired bootstrap over the same items.

Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile intervals); paired as
in Koehn, Statistical Significance Tests for Machine Translation Evaluation (2004).
"""

from collections.abc import Sequence
from functools import lru_cache

from pipeline.measure.record import TaskScore

DRAWS = 10_000
SEED = 0
ENDS_PERCENT = (2.5, 97.5)
Counts = tuple[int, int, int]
"""Of one task: items that only the first had right, only the second, and both or neither."""


def paired_ends(one: Sequence[TaskScore], other: Sequence[TaskScore]) -> tuple[float, float] | None:
    """From where to where the mean accuracy of ``one`` may lie above that of ``other``, with 95 %.

    In points. None where they are not of the same items of the same tasks, or the items were not
    kept, as in records of earlier versions.
    """
    items = [{task.task: task.right_items or "" for task in tasks} for tasks in (one, other)]
    lengths = [{name: len(marks) for name, marks in each.items()} for each in items]
    if not lengths[0] or lengths[0] != lengths[1] or not all(lengths[0].values()):
        return None
    ours, theirs = items
    return _bootstrap(tuple(_counts(ours[name], theirs[name]) for name in ours))


def _counts(one: str, other: str) -> Counts:
    pairs = list(zip(one, other, strict=True))
    won, lost = pairs.count(("1", "0")), pairs.count(("0", "1"))
    return won, lost, len(pairs) - won - lost


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
