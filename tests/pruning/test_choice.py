"""Greedy and one-shot choice of the next candidate."""

import json
from collections.abc import Sequence

import pytest

from pipeline.files import encode
from pipeline.pruning.choice import GREEDY, ONE_SHOT, Choice, Scorer
from pipeline.pruning.phases import Phase
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import BLOCKS, MLP_CHANNELS, Candidate

BLOCK = BlockShape(width=8, group_width=1, params=80, fixed_params=0)
DENSE = PruningState.dense(ModelShape.repeated(3, BLOCK, BLOCK, total_params=600))


class Noting(Scorer):
    """Scores grow with what is gone already, so that scores of different steps differ."""

    criterion = "noted"

    def __init__(self, refused: Candidate | None = None) -> None:
        self.refused = refused
        self.asked: list[Candidate] = []

    def scores(
        self, state: PruningState, candidates: Sequence[Candidate]
    ) -> Sequence[ScoredCandidate]:
        self.asked += candidates
        return [ScoredCandidate(c, self.score_of(state, c)) for c in candidates]

    def score_of(self, state: PruningState, candidate: Candidate) -> float | None:
        if candidate == self.refused:
            return None
        order = (7 * candidate.layer + 3 * len(candidate.unit.name)) % 5
        return 100 * state.ratio_percent + order + candidate.width_after / 10


def taken(choice: Choice, phase: Phase, scorer: Noting, steps: int) -> list[Step]:
    """The first steps of a phase, each read back from its file before the next."""
    state, last, found = DENSE, None, []
    for index in range(steps):
        step = choice.step(scorer, index, state, phase.candidates(state), last)
        last = Step.from_json(json.loads(encode(step.to_json())))
        assert last == step
        state = state.without(step.chosen)
        found.append(step)
    return found


def test_a_greedy_step_scores_every_candidate_anew() -> None:
    scorer, phase = Noting(), Phase("blocks", BLOCKS, end_percent=100)
    steps = taken(GREEDY, phase, scorer, 3)
    assert [len(step.scored) for step in steps] == [6, 5, 4]
    assert [step.evaluations for step in steps] == [6, 5, 4]
    assert len(scorer.asked) == 15


def test_a_one_shot_choice_takes_candidates_in_the_order_of_their_first_scores() -> None:
    scorer, phase = Noting(), Phase("blocks", BLOCKS, end_percent=100)
    first, *rest = taken(ONE_SHOT, phase, scorer, 6)
    assert scorer.asked == DENSE.candidates(BLOCKS, None)
    scores = {s.candidate: s.score for s in first.scored}
    ranking = sorted(scores, key=lambda candidate: scores[candidate])
    assert [step.chosen for step in (first, *rest)] == ranking
    assert first.evaluations == 6
    for step in rest:
        assert step.evaluations == 0
        assert all(s.kept and s.score == scores[s.candidate] for s in step.scored)


def test_a_one_shot_choice_scores_what_comes_up_later() -> None:
    scorer, phase = Noting(), Phase("mlp_channels", MLP_CHANNELS, end_percent=100, group_size=3)
    first, second, third = taken(ONE_SHOT, phase, scorer, 3)
    assert first.evaluations == 3
    assert second.evaluations == third.evaluations == 1
    narrower = Candidate(first.chosen.unit, first.chosen.layer, first.chosen.width_after - 3)
    assert [s.candidate for s in second.scored if not s.kept] == [narrower]
    assert len(set(scorer.asked)) == len(scorer.asked) == 5


def test_what_was_refused_stays_refused() -> None:
    refused = DENSE.candidates(BLOCKS, None)[1]
    steps = taken(ONE_SHOT, Phase("blocks", BLOCKS, end_percent=100), Noting(refused), 3)
    assert [step.refused for step in steps] == [[refused]] * 3


@pytest.mark.parametrize("choice", [GREEDY, ONE_SHOT])
def test_a_choice_says_beforehand_what_a_step_scores(choice: Choice) -> None:
    phase = Phase("mlp_channels", MLP_CHANNELS, end_percent=100, group_size=3)
    state, before = DENSE, ()
    for step in taken(choice, phase, Noting(), 4):
        candidates = phase.candidates(state)
        assert len(choice.unscored(candidates, before)) == step.evaluations
        state, before = state.without(step.chosen), candidates
