"""float32's decisions from scores in lower precision."""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import ATTN, BLOCKS, Candidate
from pipeline.scoring.losses import LocalLosses, lowered
from pipeline.scoring.mixed import AT_LEAST, confirmed
from pipeline.scoring.perplexity import Windows, scored

CANDIDATES = [Candidate(ATTN, layer, 0) for layer in range(30)]


class Exact:
    """Knows the losses in float32, and notes what was asked."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses = dict(zip(CANDIDATES, losses, strict=True))
        self.asked: list[Candidate] = []

    def __call__(self, asked: Sequence[Candidate]) -> Tensor:
        self.asked += asked
        return torch.tensor([[self.losses[c]] for c in asked], dtype=torch.float64)


def rounded(
    losses: Sequence[float], shift: float, noise: float, seed: int
) -> list[ScoredCandidate]:
    generator = random.Random(seed)
    rough = [[loss + shift + generator.gauss(0, noise)] for loss in losses]
    return scored(CANDIDATES, torch.tensor(rough, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(50))
def test_the_choice_is_that_of_float32_under_a_common_shift_and_noise(seed: int) -> None:
    generator = random.Random(1000 + seed)
    losses = [generator.uniform(2, 2.2) for _ in CANDIDATES]
    exact = Exact(losses)
    found = confirmed(rounded(losses, shift=0.05, noise=2e-3, seed=seed), exact)
    assert [s.candidate for s in found] == CANDIDATES
    step = Step.choose(found)
    assert step.chosen == min(CANDIDATES, key=exact.losses.__getitem__)
    assert step.score == pytest.approx(math.exp(min(losses)))
    assert len(set(exact.asked)) == len(exact.asked) < len(CANDIDATES)
    for s in found:
        assert s.estimated == (s.candidate not in exact.asked)
        assert math.log(s.score) == pytest.approx(exact.losses[s.candidate], abs=0.02)


def test_clear_cases_cost_the_few_that_measure_the_rounding() -> None:
    losses = [2 + 0.1 * i for i in range(30)]
    exact = Exact(losses)
    confirmed(rounded(losses, shift=0.0, noise=1e-5, seed=0), exact)
    assert len(exact.asked) == AT_LEAST


def test_what_is_no_number_in_lower_precision_is_scored_again() -> None:
    losses = [2 + 0.1 * i for i in range(30)]
    rough = rounded(losses, shift=0.0, noise=1e-5, seed=0)
    rough[0] = ScoredCandidate(CANDIDATES[0], None)
    found = confirmed(rough, Exact(losses))
    assert Step.choose(found).chosen == CANDIDATES[0]
    everything = [ScoredCandidate(candidate, None) for candidate in CANDIDATES]
    exact = Exact(losses)
    assert Step.choose(confirmed(everything, exact)).chosen == CANDIDATES[0]
    assert exact.asked == CANDIDATES


def test_estimates_stay_estimates() -> None:
    losses = [2 + 0.1 * i for i in range(30)]
    rough = rounded(losses, shift=0.0, noise=1e-5, seed=0)
    rough[1] = ScoredCandidate(CANDIDATES[1], rough[1].score, estimated=True)
    exact = Exact(losses)
    found = confirmed(rough, exact)
    assert found[1].estimated
    assert CANDIDATES[1] not in exact.asked


def test_a_model_is_screened_in_float16_and_decided_in_float32() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = PrunableModel(AutoModelForCausalLM.from_config(config))
    for parameter in model.model.parameters():
        parameter.data.mul_(4)
    live = LiveModel(lambda _: model)
    low = lowered(live, torch.float16)
    windows = Windows(torch.randint(0, 64, (4, 32)), None)
    exact = LocalLosses(live, 0.5, keep=False)
    screen = LocalLosses(low, 0.5, keep=True)
    state = model.state
    for _ in range(4):
        candidates = state.candidates(BLOCKS, 0)
        everything = exact(state, candidates, windows, lambda _: None)
        rough = scored(candidates, screen(state, candidates, windows, lambda _: None))
        current = state
        found = confirmed(
            rough, lambda asked, at=current: exact(at, asked, windows, lambda _: None)
        )
        chosen = Step.choose(found).chosen
        assert chosen == Step.choose(scored(candidates, everything)).chosen
        state = state.without(chosen)
    assert low.at(low.cut(state)).model.dtype == torch.float16
    assert live.at(live.cut(state)).model.dtype == torch.float32
    assert low.at(low.cut(state)) is not live.at(live.cut(state))
