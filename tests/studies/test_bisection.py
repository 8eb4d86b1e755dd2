"""The search for the least ratio, on models whose speeds are known."""

import math
import random
from collections.abc import Callable, Mapping

import pytest

from pipeline.stages.prune import UNREACHED
from pipeline.studies.base import Trial
from pipeline.studies.bisection import AGAIN, EVERY, TARGET, Bisection, ended, on_the_way, tried_of
from pipeline.studies.goals import RATIO, Goal

SPEED, CACHE = "decode_speedup", "kv_cache_bytes_per_token"
Model = Callable[[float], Mapping[str, float]]


def faster(ratio: float) -> float:
    """Times as fast as the dense model: four fifths of its time are its weights'."""
    return 1 / (1 - 0.8 * ratio / 100)


def timed(noise: float, seed: int = 0) -> Model:
    """As measured, with an interval that is too narrow once in a while."""
    luck = random.Random(seed)

    def measure(ratio: float) -> Mapping[str, float]:
        median = faster(ratio) * (1 + luck.gauss(0, noise / 2))
        low, high = median * (1 - noise), median * (1 + noise)
        return {SPEED: median, f"{SPEED}_low": low, f"{SPEED}_high": high}

    return measure


def speed(wanted: float) -> Goal:
    return Goal(SPEED, wanted, dense=1.0)


def carried_out(search: Bisection, measure: Model, before: tuple[Trial, ...] = ()) -> list[Trial]:
    """All runs, as their outcomes lead from one to the next."""
    trials = list(before)
    while proposed := search.next(trials):
        for values in proposed:
            outcome = measure(values[TARGET])
            trials.append(Trial(len(trials), values, outcome=outcome, state="done"))
        assert len(trials) < 60
    return trials


@pytest.mark.parametrize("wanted", [1.02, 1.25, 1.9])
@pytest.mark.parametrize("step", [0.1, 5.0])
def test_the_least_ratio_is_found_and_measured_twice(wanted: float, step: float) -> None:
    search = Bisection((speed(wanted),), 0, 75.69, step, guess=100 * (1 - 1 / wanted))
    trials = carried_out(search, timed(noise=0))
    exact = 100 * (1 - 1 / wanted) / 0.8
    end = ended(trials)
    assert end is not None
    assert end.values[TARGET] == pytest.approx(exact, abs=step)
    assert end.values[TARGET] >= exact - 1e-9
    (found,) = [each for each in tried_of(trials) if each.ratio == end.values[TARGET]]
    assert len(found.outcomes) == 2
    assert len(trials) <= search.most_runs


def test_few_runs_are_enough_where_speed_follows_size() -> None:
    search = Bisection((speed(1.25),), 0, 88, 0.1, guess=20)
    assert len(carried_out(search, timed(noise=0))) <= 8


@pytest.mark.parametrize("seed", range(20))
def test_what_is_found_has_it_in_two_measurements_however_noisy(seed: int) -> None:
    search = Bisection((speed(1.25),), 0, 75, 0.5, guess=20)
    trials = carried_out(search, timed(noise=0.05, seed=seed))
    end = ended(trials)
    assert end is not None
    (found,) = [each for each in tried_of(trials) if each.ratio == end.values[TARGET]]
    votes = [outcome[f"{SPEED}_low"] >= 1.25 for outcome in found.outcomes]
    assert votes in ([True, True], [True, False, True], [False, True, True])
    assert end.values[AGAIN] == votes.index(True), "the run at the end has one that has it"
    assert faster(found.ratio) > 1.25


def test_a_ratio_that_had_it_by_luck_is_passed_over() -> None:
    search = Bisection((speed(1.25),), 0, 75, 1.0, guess=20)
    lucky = {29.0: iter([1.3, 1.2, 1.2])}

    def measure(ratio: float) -> Mapping[str, float]:
        value = next(lucky[ratio]) if ratio in lucky else faster(ratio - 5)
        return {SPEED: value, f"{SPEED}_low": value, f"{SPEED}_high": value}

    trials = carried_out(search, measure)
    assert on_the_way(29.0, 2) in [trial.values for trial in trials]
    end = ended(trials)
    assert end is not None
    assert end.values[TARGET] == 30.0


def test_out_of_reach_ends_at_the_cap_and_tells_the_best() -> None:
    search = Bisection((speed(1.9),), 0, 40, 0.5, guess=47)
    trials = carried_out(search, timed(noise=0))
    assert ended(trials) is None
    best = search.best(trials)
    assert best is not None
    assert best.ratio == 40
    assert [trial.values[TARGET] for trial in trials] == [40]


def test_what_was_timed_too_roughly_at_the_cap_is_timed_again() -> None:
    search = Bisection((speed(1.4),), 0, 40, 0.5, guess=47)
    rough = iter([(1.2, 1.9), (1.45, 1.6), (1.41, 1.5)])

    def measure(_: float) -> Mapping[str, float]:
        low, high = next(rough)
        return {SPEED: 1.5, f"{SPEED}_low": low, f"{SPEED}_high": high}

    trials = carried_out(search, lambda ratio: measure(ratio) if ratio == 40 else timed(0)(ratio))
    assert [trial.values[AGAIN] for trial in trials if trial.values[TARGET] == 40][:3] == [0, 1, 2]
    assert any(EVERY not in trial.values for trial in trials)


def test_it_goes_on_from_what_is_there_and_ends_alike() -> None:
    search = Bisection((speed(1.4),), 0, 75, 0.5, guess=29)
    whole = carried_out(search, timed(noise=0))
    for done in range(len(whole)):
        again = carried_out(search, timed(noise=0), tuple(whole[:done]))
        assert [trial.values for trial in again] == [trial.values for trial in whole]


def test_all_that_is_wanted_is_met_and_no_ratio_is_below_the_least() -> None:
    cache = Goal(CACHE, 600, dense=1000)
    search = Bisection((speed(1.1), cache), 30.25, 75, 0.5, guess=40)
    of_speed = timed(noise=0)
    trials = carried_out(search, lambda ratio: {**of_speed(ratio), CACHE: 1000 - 8 * ratio})
    end = ended(trials)
    assert end is not None
    assert end.values[TARGET] == 50.0
    assert min(trial.values[TARGET] for trial in trials) >= 30.25


def test_what_is_counted_is_not_measured_again() -> None:
    search = Bisection((Goal(CACHE, 600, dense=1000),), 0, 75, 0.5, guess=40)
    trials = carried_out(search, lambda ratio: {CACHE: 1000 - 10 * math.floor(ratio)})
    assert ended(trials).values[TARGET] == 40.0  # type: ignore[union-attr]
    assert all(not trial.values.get(AGAIN) for trial in trials)


def test_ratios_that_coarse_pieces_pass_over_are_not_tried() -> None:
    search = Bisection((speed(1.4),), 0, 80, 5.0, guess=29)

    def measure(ratio: float) -> Mapping[str, float]:
        layers = math.ceil(ratio / 8.37) * 8.37
        return {**timed(noise=0)(layers), RATIO: layers}

    trials = carried_out(search, measure)
    states = [trial.outcome[RATIO] for trial in trials if not trial.values.get(AGAIN)]  # type: ignore[index]
    assert len(set(states)) == len(states) - 1, "only what was found is there again, at the end"
    assert ended(trials).outcome[RATIO] == 5 * 8.37  # type: ignore[union-attr, index]


def test_a_run_that_failed_ends_it() -> None:
    search = Bisection((speed(1.25),), 0, 75, 0.5, guess=20)
    failed = Trial(0, on_the_way(20.0), state="failed", reason="no memory")
    assert search.next([failed]) == []


def test_what_cannot_be_removed_is_a_limit_below_which_it_goes_on() -> None:
    search = Bisection((speed(1.9),), 0, 80, 0.5, guess=47)
    trials: list[Trial] = []
    while proposed := search.next(trials):
        ratio = proposed[0][TARGET]
        if ratio > 60.2:
            reason = f"prune.target_ratio={ratio:g} {UNREACHED}"
            trials.append(Trial(len(trials), proposed[0], state="failed", reason=reason))
        else:
            outcome = timed(noise=0)(ratio)
            trials.append(Trial(len(trials), proposed[0], outcome=outcome, state="done"))
    assert ended(trials) is not None
    hopeless = Bisection((speed(2.5),), 0, 80, 0.5, guess=60)
    limit = Trial(1, on_the_way(60.0), state="failed", reason=UNREACHED)
    near = Trial(0, on_the_way(59.5), outcome=timed(noise=0)(59.5), state="done")
    assert hopeless.next([limit]) == [on_the_way(30.0)]
    assert hopeless.next([near, limit]) == []
