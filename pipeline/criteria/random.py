"""Chance: every candidate is as likely to go as any other."""

import random
from collections.abc import Sequence

from pipeline.criteria.base import Criterion, Material, ScoredBy
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate


def by_chance(seed: int) -> Criterion:
    """The same state and seed give the same numbers, so that a run can be continued."""

    def scores(
        _material: Material, state: PruningState, candidates: Sequence[Candidate]
    ) -> list[float]:
        draw = random.Random(f"{seed} {state.identity()}")  # noqa: S311
        return [draw.random() for _ in candidates]

    return ScoredBy("random", scores, {"seed": seed})
