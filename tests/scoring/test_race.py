"""A race decides what all losses would, and asks for few of them."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pipeline.data.datasets import cut_windows, local_rows, paragraphs
from pipeline.models.loading import load
from pipeline.models.source import locate
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import BLOCKS, MLP_WIDTH, Candidate
from pipeline.scoring.one_pass import OnePass
from pipeline.scoring.perplexity import Windows, perplexity_of_losses, scored
from pipeline.scoring.race import race
from pipeline.settings.section import BUILTIN

LAYERS = [Candidate(MLP_WIDTH, layer, 64) for layer in range(24)]


class Asked:
    """Answers from a matrix of losses ``[candidates, windows]`` and notes what was asked."""

    def __init__(self, candidates: Sequence[Candidate], losses: Tensor) -> None:
        self.rows = {candidate: row for row, candidate in enumerate(candidates)}
        self.losses = losses
        self.counts: Counter[tuple[int, int]] = Counter()

    def __call__(self, candidates: Sequence[Candidate], windows: Sequence[int]) -> Tensor:
        rows = [self.rows[candidate] for candidate in candidates]
        self.counts.update((row, window) for row in rows for window in windows)
        return self.losses[rows][:, list(windows)]

    def windows_of(self, row: int) -> int:
        return sum(asked == row for asked, _ in self.counts)


def matrix(windows: int, seed: int = 0, spread: float = 0.02) -> Tensor:
    """Losses of ``LAYERS``: text that is hard or easy for all, damage, and chance."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.rand(1, windows, generator=generator, dtype=torch.float64)
    damage = torch.linspace(0, 0.5, len(LAYERS), dtype=torch.float64)[:, None]
    order = torch.randperm(len(LAYERS), generator=generator)
    chance = torch.randn(len(LAYERS), windows, generator=generator, dtype=torch.float64)
    return 2 + text + damage[order] + spread * chance


def raced(losses: Tensor, last: Step | None = None) -> tuple[list[ScoredCandidate], Asked]:
    asked = Asked(LAYERS, losses)
    return race(LAYERS, losses.shape[1], asked, last), asked


def exhaustive(losses: Tensor) -> Step:
    return Step.choose(scored(LAYERS, losses))


@pytest.fixture(params=["first step", "later step"])
def last(request: pytest.FixtureRequest) -> Step | None:
    """Nothing, or a step whose gaps are nearly those of ``matrix``."""
    if request.param == "first step":
        return None
    return exhaustive(matrix(16) - 0.1 + 0.002 * matrix(16, seed=9))


@pytest.mark.parametrize("windows", [2, 3, 8, 16, 22])
def test_it_chooses_what_all_losses_choose(windows: int) -> None:
    for seed in range(10):
        losses = matrix(windows, seed)
        expected = exhaustive(losses)
        for last in (None, exhaustive(losses - 0.1)):
            step = Step.choose(raced(losses, last)[0])
            assert (step.chosen, step.score) == (expected.chosen, expected.score)


def test_what_stayed_is_exact_and_what_was_dropped_is_estimated(last: Step | None) -> None:
    losses = matrix(16)
    found, asked = raced(losses, last)
    assert [s.candidate for s in found] == LAYERS
    for row, one in enumerate(found):
        assert one.estimated == (asked.windows_of(row) < 16)
        exact = perplexity_of_losses(losses[row])
        assert one.score == (pytest.approx(exact, rel=0.05) if one.estimated else exact)
    assert sum(s.estimated for s in found) > len(LAYERS) / 2


def test_no_loss_is_asked_for_twice_and_few_are_asked_for(last: Step | None) -> None:
    found, asked = raced(matrix(16), last)
    assert set(asked.counts.values()) == {1}
    assert asked.counts.total() < len(found) * 16 / (3 if last else 2)
    assert all(asked.windows_of(row) for row in range(len(found)))


def test_the_same_losses_give_the_same_race_after_a_restart(last: Step | None) -> None:
    found, asked = raced(matrix(16), last)
    read = Step.from_json(last.to_json()) if last else None
    again, asked_again = raced(matrix(16), read)
    assert again == found
    assert asked_again.counts == asked.counts


def test_estimates_are_a_prior_for_the_next_step() -> None:
    losses = matrix(16)
    first, _ = raced(losses)
    second, asked = raced(losses + 0.05, Step.choose(first))
    assert Step.choose(second).chosen == exhaustive(losses).chosen
    assert asked.counts.total() < len(LAYERS) * 16 / 3


def test_a_candidate_that_the_last_step_ranked_low_still_wins() -> None:
    losses = matrix(16)
    last = exhaustive(losses)
    worst = int(losses.mean(dim=1).argmax())
    losses[worst] -= 0.7
    assert Step.choose(raced(losses, last)[0]).chosen == LAYERS[worst]


def test_a_candidate_that_the_last_step_did_not_have_is_no_exception() -> None:
    losses = matrix(16)
    best = int(losses.mean(dim=1).argmin())
    known = exhaustive(losses)
    others = tuple(s for s in known.scored if s.candidate != LAYERS[best])
    found, _ = raced(losses, Step(known.chosen, known.score, others))
    assert Step.choose(found).chosen == LAYERS[best]


# Little to go by


def test_with_one_window_all_candidates_are_scored(last: Step | None) -> None:
    losses = matrix(1)
    found, asked = raced(losses, last)
    assert found == scored(LAYERS, losses)
    assert asked.counts.total() == len(LAYERS)


def test_with_two_windows_the_last_step_saves_work() -> None:
    losses = matrix(2)
    found, asked = raced(losses, exhaustive(losses - 0.1))
    assert asked.counts.total() < 0.75 * losses.numel()
    assert Step.choose(found).chosen == exhaustive(losses).chosen


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_equal_candidates_are_all_scored_and_the_first_wins(spread: float) -> None:
    losses = matrix(16, spread=spread)[:1].repeat(len(LAYERS), 1)
    for last in (None, exhaustive(losses)):
        found, _ = raced(losses, last)
        assert found == scored(LAYERS, losses)
        assert Step.choose(found).chosen == LAYERS[0]


@pytest.mark.parametrize("count", [1, 2])
def test_so_few_candidates_are_a_race_too(count: int) -> None:
    losses = matrix(8)[:count]
    found = race(LAYERS[:count], 8, Asked(LAYERS, losses), None)
    assert Step.choose(found).chosen == Step.choose(scored(LAYERS[:count], losses)).chosen


# No number


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("window", [0, 5, 15])
def test_a_loss_that_is_no_number_refuses_its_candidate_alone(
    bad: float, window: int, last: Step | None
) -> None:
    losses = matrix(16)
    best = int(losses.mean(dim=1).argmin())
    losses[best, window] = bad
    found, _ = raced(losses, last)
    assert found[best] == ScoredCandidate(LAYERS[best], None)
    others = losses.mean(dim=1)
    others[best] = math.inf
    assert Step.choose(found).chosen == LAYERS[int(others.argmin())]


def test_a_refused_candidate_is_not_asked_for_again() -> None:
    losses = matrix(16)
    losses[3, 1] = math.nan
    _, asked = raced(losses)
    assert asked.windows_of(3) == 4


def test_what_was_dropped_for_a_leader_that_is_refused_comes_back() -> None:
    losses = matrix(16)
    best = int(losses.mean(dim=1).argmin())
    losses[best] -= 5
    losses[best, 15] = math.nan
    found, asked = raced(losses)
    assert [s.candidate for s in found if s.score is None] == [LAYERS[best]]
    assert set(asked.counts.values()) == {1}
    others = losses.mean(dim=1).nan_to_num(math.inf)
    assert Step.choose(found).chosen == LAYERS[int(others.argmin())]


def test_without_any_number_all_are_refused(last: Step | None) -> None:
    found, _ = raced(torch.full_like(matrix(8), math.nan), last)
    assert found == [ScoredCandidate(candidate, None) for candidate in LAYERS]


# A model


def test_steps_of_the_built_in_model_are_those_of_exhaustive_scoring() -> None:
    source = locate(str(BUILTIN / "stories-5m"), None, None)
    rows = local_rows(BUILTIN / "data" / "calibration.jsonl", "text", paragraphs)
    windows = Windows(cut_windows(source.tokenizer, rows, 128, 16), source.eos_id)
    live = load(source, "float32", "cpu", "sdpa")
    asked_for = total = 0
    last = None
    for _ in range(3):
        candidates = live.state.candidates(BLOCKS, 0)
        losses = OnePass(0.5).losses(live, candidates, windows, lambda _: None)
        asked = Asked(candidates, losses)
        last = Step.choose(race(candidates, 16, asked, last))
        assert last.chosen == Step.choose(scored(candidates, losses)).chosen
        asked_for, total = asked_for + asked.counts.total(), total + losses.numel()
        live.prune_to(live.state.without(last.chosen))
    assert asked_for < 0.75 * total
