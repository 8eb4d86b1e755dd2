"""What a method says: what may go, how it is scored, how the next is chosen, how far it goes."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pipeline.criteria.base import Criterion
from pipeline.evolution.base import Search
from pipeline.orders.base import Order
from pipeline.pruning.choice import GREEDY, Choice
from pipeline.pruning.phases import Phase
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Unit
from pipeline.settings.core import PruneConfig

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


S = TypeVar("S", bound=PruneConfig)


class Method(ABC, Generic[S]):
    """A file of this folder declares one as ``METHOD``."""

    name: str
    """``prune.method``, and the name of its file in ``conf/prune``."""
    section: type[S]
    """Its keys in the configuration."""
    reach_depends_on: str = "these settings"
    """What to change where the target cannot be reached."""
    choice: Choice = GREEDY
    """How the next candidate is chosen."""

    @abstractmethod
    def phases(self, settings: S, source: "ModelSource") -> tuple[Phase, ...]:
        """The dimensions in the order in which they are pruned, and where each of them ends."""

    @abstractmethod
    def criterion(self, settings: S) -> Criterion:
        """What scores the candidates."""

    def order(self, settings: S) -> Order | None:  # noqa: ARG002
        """What channels and heads are put in order by before anything goes; None: as they are."""
        return None

    def search(self, settings: S) -> Search | None:  # noqa: ARG002
        """What searches for a better state at the target after the phases; None: they end the run.

        Only where candidates are scored on calibration text.
        """
        return None

    def makes_up(self, settings: S, source: "ModelSource") -> bool:  # noqa: ARG002
        """Whether biases make up for what removed channels give on average.

        Only where the order of channels asks for statistics.
        """
        return False

    def label(self, settings: S) -> str:  # noqa: ARG002
        """What a person tells runs of equal model and ratio apart by, in a word."""
        return self.name

    def unusual(self, settings: S) -> list[str]:  # noqa: ARG002
        """Settings that differ from the usual ones, as they are shown after ``label``."""
        return []

    def columns(self, settings: S) -> dict[str, float]:  # noqa: ARG002
        """Numbers by which runs are told apart in a table of many, where a setting is a list."""
        return {}

    def tags(self, settings: S) -> list[str]:  # noqa: ARG002
        """What people filter runs by."""
        return [self.name]

    def problems(self, settings: S, source: "ModelSource") -> list[str]:
        """What is wrong with the settings for a model, one message each.

        Here: a target that cannot be reached.
        """
        state = PruningState.dense(source.shape)
        for phase in self.phases(settings, source):
            state = phase.exhausted(state)
        if state.ratio_percent >= settings.target_ratio:
            return []
        most = math.floor(state.ratio_percent * 100) / 100
        barred = {unit.unit: unit.reason for unit in source.shape.barred}
        units = [unit for phase in self.phases(settings, source) for unit in phase.units]
        reasons = dict.fromkeys(
            barred[part] for unit in units for part in unit.parts if part in barred
        )
        stays = "".join(f"; {reason}" for reason in reasons)
        return [
            f"prune.target_ratio: {settings.target_ratio:g} is wrong; allowed is up to {most:.2f}: "
            f"with {self.reach_depends_on} prune={self.name} can remove no more of this model"
            f"{stays}"
        ]

    def narrows(self, settings: S, source: "ModelSource", unit: Unit | None = None) -> bool:
        """Whether layers end with widths of their own, so that they differ from one another.

        With ``unit``: whether groups of it may go.
        """
        begins = 0.0
        for phase in self.phases(settings, source):
            narrows = phase.group_size and phase.end_percent > begins
            if narrows and (unit is None or unit in phase.units):
                return True
            begins = phase.end_percent
        return False

    def units_recipe(self, settings: S, source: "ModelSource") -> dict[str, Any]:
        """What decides which pieces may go, whatever the target; part of stages' keys."""
        return {"phases": [phase.identity() for phase in self.phases(settings, source)]}

    def target_recipe(self, settings: S, source: "ModelSource") -> dict[str, Any]:
        """What decides how far each dimension goes; part of the key of the stage ``prune``."""
        ends = [[phase.dimension, phase.end_percent] for phase in self.phases(settings, source)]
        return {"target_ratio": settings.target_ratio, "ends": ends}

    def search_recipe(self, settings: S) -> dict[str, Any]:
        """What decides the search after the phases; nothing where there is none."""
        search = self.search(settings)
        return {"evolution": search.identity()} if search else {}
