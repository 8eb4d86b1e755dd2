"""float32's decision from float16's scores: whatever rounding could have put first is scored again.

Rounding moves every score of a step. What matters is by how much more it moves one candidate than
another, and that is measured in every step: the best few are scored in both precisions, and the
spread of the difference gives a band. Candidates within the band of the best are scored again too,
which measures the spread better, until none is left.
"""

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev

from torch import Tensor

from pipeline.pruning.steps import ScoredCandidate
from pipeline.pruning.units import Candidate
from pipeline.scoring.perplexity import scored

AT_LEAST = 5
"""Candidates scored again in every step: the spread is measured on them."""
SPREADS = 6
"""Width of the band, in standard deviations of the difference between the precisions."""

AskExact = Callable[[Sequence[Candidate]], Tensor]
"""Losses of candidates in float32, ``[candidates, windows]``."""


def confirmed(screened: Sequence[ScoredCandidate], ask: AskExact) -> list[ScoredCandidate]:
    """Scores of a step: in float32 where they may decide, else estimates from ``screened``.

    ``screened`` are scores in lower precision. What is an estimate there stays one. What is no
    finite number there is scored again: only the format may have been too small.
    """
    rough = {
        s.candidate: math.log(s.score) for s in screened if s.score is not None and not s.estimated
    }
    exact: dict[Candidate, ScoredCandidate] = {}
    asked = [s.candidate for s in screened if s.score is None and not s.estimated]
    asked += sorted(rough, key=rough.__getitem__)[:AT_LEAST]
    shift = 0.0
    while asked:
        exact |= {s.candidate: s for s in scored(asked, ask(asked))}
        best = min(
            (math.log(s.score) for s in exact.values() if s.score is not None), default=math.inf
        )
        moved = [
            math.log(s.score) - rough[s.candidate]
            for s in exact.values()
            if s.score is not None and s.candidate in rough
        ]
        shift = mean(moved) if moved else 0.0
        band = SPREADS * stdev(moved) if len(moved) > 1 else math.inf
        asked = [c for c, loss in rough.items() if c not in exact and loss + shift - band <= best]
    return [exact.get(s.candidate) or _estimate(s, shift) for s in screened]


def _estimate(rough: ScoredCandidate, shift: float) -> ScoredCandidate:
    ppl = None if rough.score is None else rough.score * math.exp(shift)
    return ScoredCandidate(rough.candidate, ppl, estimated=True)
