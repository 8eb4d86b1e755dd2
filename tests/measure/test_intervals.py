"""How sure a median is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measure.intervals import Interval

VALUES = st.lists(st.floats(0.1, 1e3), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # the table of confidence limits for the median (Conover, table A3, of 95 %)
    [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (15, 4, 12), (20, 6, 15), (50, 18, 33)],
)
def test_the_ends_are_the_order_statistics_of_the_tables(count, low, high) -> None:
    values = [float(i) for i in range(1, count + 1)]
    random.Random(0).shuffle(values)
    assert Interval.of(values).ends == (low, high)


def test_the_true_median_is_inside_as_often_as_promised() -> None:
    rng = random.Random(1)
    inside = sum(
        Interval.of([rng.expovariate(1.0) for _ in range(15)]).contains(0.6931) for _ in range(2000)
    )
    assert inside / 2000 >= 0.945


def test_many_values_are_no_trouble() -> None:
    interval = Interval.of([float(i) for i in range(5000)])
    assert interval.median == 2499.5
    assert interval.ends == (2430.0, 2569.0)


@given(VALUES, VALUES)
def test_a_ratio_is_as_wide_as_it_can_be(some, others) -> None:
    one, other = Interval.of(some), Interval.of(others)
    ratio = one.over(other)
    assert ratio.low <= ratio.median <= ratio.high
    for numerator in one.ends:
        for denominator in other.ends:
            assert ratio.contains(numerator / denominator)


def test_widened_by_a_share_and_in_another_unit() -> None:
    interval = Interval(2.0, 1.0, 4.0)
    assert interval.widened(0.5) == Interval(2.0, 0.5, 6.0)
    assert interval.times(100) == Interval(200.0, 100.0, 400.0)
