"""Random: what every other method has to beat."""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Criterion
from pipeline.criteria.random import by_chance
from pipeline.methods.base import Method
from pipeline.methods.sections import WholeConfig
from pipeline.pruning.phases import Phase

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class RandomConfig(WholeConfig):
    """Blocks or layers by chance."""

    seed: int = 0
    """Another seed gives another order."""


class Random(Method[RandomConfig]):
    """Each of what is left is as likely to go as any other."""

    name = "random"
    section = RandomConfig

    def phases(self, settings: RandomConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """Blocks or layers, down to the target."""
        return (settings.phase,)

    def criterion(self, settings: RandomConfig) -> Criterion:
        """Chance."""
        return by_chance(settings.seed)

    def unusual(self, settings: RandomConfig) -> list[str]:
        """What goes, and the seed."""
        return [settings.units, f"seed {settings.seed}"]


METHOD = Random()
