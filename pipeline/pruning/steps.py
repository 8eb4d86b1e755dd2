"""One decision: the candidates of a step with their scores, and the one that goes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StageError
from pipeline.pruning.units import Candidate

PERPLEXITY = "perplexity"
"""The criterion whose scores have names of their own in files: ``importance`` and ``ppl``."""


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate and its score: the lower, the less the model loses without it."""

    candidate: Candidate
    score: float | None
    """Under perplexity that of the model without it. None where that is no finite number."""
    estimated: bool = False
    """Whether the score only shows that another candidate goes."""
    kept: bool = False
    """Whether the score is that of an earlier step."""

    def to_json(self, score_key: str) -> dict[str, Any]:
        """The candidate's keys and its score; ``estimated`` and ``kept`` only where they hold."""
        marks = {"estimated": self.estimated, "kept": self.kept}
        shown = {name: True for name, holds in marks.items() if holds}
        return {**self.candidate.to_json(), score_key: self.score, **shown}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], score_key: str) -> "ScoredCandidate":
        """The inverse of ``to_json``."""
        return cls(
            Candidate.from_json(data),
            data[score_key],
            data.get("estimated", False),
            data.get("kept", False),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One removal: every candidate with its score, and the one that goes."""

    chosen: Candidate
    score: float
    """That of ``chosen``: the lowest of all candidates."""
    scored: tuple[ScoredCandidate, ...]
    audited: Candidate | None = None
    """What exhaustive scoring would have chosen, where a faster search was checked against it."""
    criterion: str = PERPLEXITY
    """What the scores are."""

    @classmethod
    def choose(cls, scored: Sequence[ScoredCandidate], criterion: str = PERPLEXITY) -> "Step":
        """The first candidate with the lowest score goes; estimates and not-a-number never."""
        finite = [
            (s.score, s.candidate)
            for s in scored
            if s.score is not None and math.isfinite(s.score) and not s.estimated
        ]
        if not finite:
            raise StageError(
                f"none of the {len(scored)} candidates has a finite {criterion}: the model or its "
                "precision is at fault; try model.dtype=float32. The steps so far are kept."
            )
        score, chosen = min(finite, key=lambda pair: pair[0])
        return cls(chosen, score, tuple(scored), criterion=criterion)

    @property
    def follows_its_scores(self) -> bool:
        """Whether ``chosen`` and ``score`` are what the scores decide."""
        decided = Step.choose(self.scored, self.criterion)
        return (decided.chosen, decided.score) == (self.chosen, self.score)

    @property
    def perplexity(self) -> float | None:
        """Perplexity on calibration text after the removal; None under another criterion."""
        return self.score if self.criterion == PERPLEXITY else None

    @property
    def refused(self) -> list[Candidate]:
        """Candidates whose score is not a finite number."""
        return [s.candidate for s in self.scored if s.score is None]

    @property
    def evaluations(self) -> int:
        """Candidates that were scored for this step, estimates included."""
        return sum(not s.kept for s in self.scored)

    def score_json(self) -> dict[str, Any]:
        """The score under its name in files: ``importance``, or ``criterion`` and ``score``."""
        if self.criterion == PERPLEXITY:
            return {"importance": self.score}
        return {"criterion": self.criterion, "score": self.score}

    def scored_json(self) -> dict[str, Any]:
        """``candidates``, and ``audited`` where the step was."""
        key = _score_key(self.criterion)
        return {
            "candidates": [s.to_json(key) for s in self.scored],
            **({"audited": self.audited.to_json()} if self.audited else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; floats keep every bit."""
        return {"chosen": self.chosen.to_json(), **self.score_json(), **self.scored_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Step":
        """The inverse of ``to_json``."""
        criterion = data.get("criterion", PERPLEXITY)
        key = _score_key(criterion)
        return cls(
            Candidate.from_json(data["chosen"]),
            data["importance" if criterion == PERPLEXITY else "score"],
            tuple(ScoredCandidate.from_json(entry, key) for entry in data["candidates"]),
            Candidate.from_json(data["audited"]) if "audited" in data else None,
            criterion,
        )


def _score_key(criterion: str) -> str:
    return "ppl" if criterion == PERPLEXITY else "score"
