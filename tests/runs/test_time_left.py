"""The time that a stage is said to take, on step times of a run of the built-in model."""

from collections.abc import Iterator

import pytest

from pipeline.pruning.passes import passes
from pipeline.pruning.phases import Phase
from pipeline.pruning.play import likely
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS
from pipeline.runs.time_left import TimeLeft

PROBE, BLOCK, CHANNELS = "latency", "scoring blocks", "scoring mlp channels"
RECORDED = (
    (PROBE, 9e3, 12.0), (BLOCK, 161e3, 41.7), (BLOCK, 146e3, 31.0), (PROBE, 18e3, 11.0),
    *((CHANNELS, 5.1 * 7e3, seconds) for seconds in (6.7, 4.6, 7.6, 5.8, 7.1)), (PROBE, 18e3, 9.0),
)  # fmt: skip
"""Kind of work, tokens, seconds: a third of the machine's time was another program's."""


def readings(parts: int = 10) -> Iterator[tuple[float, float, float | None]]:
    """Share of the time that is over, time left, and the time left as it is told."""
    now = 0.0
    left = TimeLeft(lambda: now)
    left.begin()
    total = sum(seconds for _, _, seconds in RECORDED)
    for place, (kind, tokens, seconds) in enumerate(RECORDED):
        ahead: dict[str, float] = {}
        for other, amount, _ in RECORDED[place:]:
            ahead[other] = ahead.get(other, 0.0) + amount
        left.ahead(ahead)
        left.doing()
        for _ in range(parts):
            now += seconds / parts
            left.progress(kind, tokens / parts)
            yield now / total, total - now, left.seconds


def test_after_a_tenth_the_time_left_is_right_within_a_factor_of_two() -> None:
    late = [(real, told) for share, real, told in readings() if share > 0.1 and real > 1]
    assert len(late) > 80
    assert [
        (real, told) for real, told in late if told is None or not real / 2 < told < real * 2
    ] == []


def test_time_left_is_not_told_before_anything_was_timed_and_passes_between_two_words() -> None:
    now = 0.0
    left = TimeLeft(lambda: now)
    assert left.seconds is None
    left.ahead({"a": 10, "b": 20})
    assert left.share is None
    now = 5.0  # the model was loaded
    left.doing()
    now = 7.0
    left.progress("a", 5)
    assert left.seconds == pytest.approx(2 + 8)  # b is taken to be as fast as a
    now = 8.0
    assert left.seconds == pytest.approx(9)
    left.begin()
    left.ahead({"a": 5, "c": 5})
    assert left.seconds == pytest.approx(4)


def test_what_is_ahead_is_counted_in_passes_of_the_dense_model() -> None:
    block = BlockShape(width=16, group_width=4, params=100, fixed_params=0)
    shape = ModelShape.repeated(4, block, block, total_params=1000)
    state, phase = PruningState.dense(shape), Phase("blocks", BLOCKS, 30)
    assert passes(state, phase.candidates(state)) == pytest.approx((8 + 36 + 8 * 4) / 12)
    from_above = passes(state, phase.candidates(state), from_layer=3)
    assert from_above == pytest.approx((2 + 7 * 2 + 1 + 8 * 4) / 12)
    steps = 0
    while state.ratio_percent < phase.end_percent:
        state, steps = state.without(likely(state, phase.candidates(state))), steps + 1
    assert 2 <= steps <= 3
    assert passes(state, phase.candidates(state)) < (8 + 36 + 8 * 4) / 12
