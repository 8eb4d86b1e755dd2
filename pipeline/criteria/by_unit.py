"""Criteria of a method whose units are scored in different ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.criteria.base import Criterion, Material, Need
from pipeline.files import Json
from pipeline.pruning.choice import Scorer
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import Candidate

if TYPE_CHECKING:
    from pipeline.settings.core import Config


@dataclass(frozen=True)
class ByUnit(Criterion):
    """Each candidate of a walk is of one unit, which says what scores it."""

    name: str
    criteria: Mapping[str, Criterion]
    """By the name of the unit."""

    @property
    def needs(self) -> frozenset[Need[Any]]:  # type: ignore[override]
        """What any of them asks for."""
        return frozenset().union(*(each.needs for each in self.criteria.values()))

    def identity(self, config: "Config") -> dict[str, Json]:
        """That of each."""
        of_each = {unit: each.identity(config) for unit, each in self.criteria.items()}
        return {"criterion": self.name, "by_unit": of_each}

    def scorer(self, config: "Config", material: Material) -> Scorer:
        """The one of the candidates' unit, opened when they come."""
        return _ScorerByUnit(self, config, material)


class _ScorerByUnit(Scorer):
    def __init__(self, by_unit: ByUnit, config: "Config", material: Material) -> None:
        self._by_unit, self._config, self._material = by_unit, config, material
        self._scorers: dict[str, Scorer] = {}

    def scores(
        self, state: PruningState, candidates: Sequence[Candidate]
    ) -> Sequence[ScoredCandidate]:
        return self._of(candidates).scores(state, candidates)

    def step(
        self, index: int, state: PruningState, candidates: Sequence[Candidate], last: Step | None
    ) -> Step:
        return self._of(candidates).step(index, state, candidates, last)

    def _of(self, candidates: Sequence[Candidate]) -> Scorer:
        (unit,) = {candidate.unit.name for candidate in candidates}
        if unit not in self._scorers:
            criterion = self._by_unit.criteria[unit]
            self._scorers[unit] = criterion.scorer(self._config, self._material)
        return self._scorers[unit]
