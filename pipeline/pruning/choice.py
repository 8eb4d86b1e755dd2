"""How the next candidate is chosen: scored anew in every step, or once."""

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import Candidate


class Scorer(ABC):
    """Scores candidates under one criterion."""

    criterion: str

    @abstractmethod
    def scores(
        self, state: PruningState, candidates: Sequence[Candidate]
    ) -> Sequence[ScoredCandidate]:
        """The candidates, in their order, with the scores that they have in ``state``."""

    def step(
        self,
        index: int,  # noqa: ARG002
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,  # noqa: ARG002
    ) -> Step:
        """Step ``index`` of a trajectory: which of ``candidates`` leaves ``state``.

        ``last`` is the step before, None for the first: a faster search may learn from it.
        """
        return Step.choose(self.scores(state, candidates), self.criterion)


class Choice(Protocol):
    """Decides a step with the scores that it asks for."""

    @property
    def name(self) -> str:
        """What it is called in keys."""

    def unscored(
        self, candidates: Sequence[Candidate], before: Container[Candidate]
    ) -> Sequence[Candidate]:
        """Those that a step scores; ``before`` are the candidates of the step before."""

    def step(
        self,
        scorer: Scorer,
        index: int,
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,
    ) -> Step:
        """Step ``index`` of a trajectory; ``last`` is the one before, None for the first."""


@dataclass(frozen=True, slots=True)
class Greedy:
    """All candidates are scored anew in every step."""

    name: str = "greedy"

    def unscored(
        self,
        candidates: Sequence[Candidate],
        before: Container[Candidate],  # noqa: ARG002
    ) -> Sequence[Candidate]:
        """All of them."""
        return candidates

    def step(
        self,
        scorer: Scorer,
        index: int,
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,
    ) -> Step:
        """As the scorer decides."""
        return scorer.step(index, state, candidates, last)


@dataclass(frozen=True, slots=True)
class OneShot:
    """A candidate is scored once, when it first comes up, and keeps its score."""

    name: str = "one_shot"

    def unscored(
        self, candidates: Sequence[Candidate], before: Container[Candidate]
    ) -> Sequence[Candidate]:
        """Those that are new."""
        return [candidate for candidate in candidates if candidate not in before]

    def step(
        self,
        scorer: Scorer,
        index: int,  # noqa: ARG002
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,
    ) -> Step:
        """The lowest of all scores so far; only candidates that are new are scored."""
        kept = {s.candidate: replace(s, kept=True) for s in last.scored} if last else {}
        new = self.unscored(candidates, kept)
        scores = {s.candidate: s for s in scorer.scores(state, new)} if new else {}
        known = kept | scores
        return Step.choose([known[candidate] for candidate in candidates], scorer.criterion)


GREEDY = Greedy()
ONE_SHOT = OneShot()
