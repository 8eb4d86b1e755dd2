"""From a configuration to the stages it needs, each with the recipe that decides its result."""

from dataclasses import dataclass, field, replace

from pipeline.models.digests import weights_digest
from pipeline.models.source import ModelSource, locate
from pipeline.settings.core import Config, ModelConfig
from pipeline.stages import stages
from pipeline.stages.base import PlannedStage, Planning
from pipeline.store.results import Store


@dataclass(frozen=True)
class Plan:
    """The stages of one run, in an order in which they can run."""

    planning: Planning
    by_name: dict[str, PlannedStage] = field(default_factory=dict)

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """The stages in their order."""
        return tuple(self.by_name.values())

    @property
    def weights(self) -> str:
        """Digest that stands for the model's weights and architecture."""
        return self.planning.weights

    @property
    def key(self) -> str:
        """What the run is about: the last recovery, the pruning, or without both the evaluation."""
        recovered = [planned for planned in self.stages if planned.stage.recovers]
        return (recovered[-1] if recovered else self.main or self.stages[-1]).key

    @property
    def main(self) -> PlannedStage | None:
        """The stage that prunes; None where a given pruning is evaluated."""
        return next((planned for planned in self.stages if planned.stage.is_main), None)


def source_of(model: ModelConfig) -> ModelSource:
    """Find a model and check it. Raises ``ConfigError``."""
    source = locate(model.path, model.gguf_file, model.revision, model.bos)
    source.check()
    return source


def planning_of(config: Config, source: ModelSource, store: Store) -> Planning:
    """What stages are planned from: hashes files, loads no model."""
    return Planning(config, source, weights_digest(source, store.digests.of), store.digests.of)


def plan(planning: Planning) -> Plan:
    """Plan a run. ``model.device`` must not be "auto"."""
    planned = replace(planning, planned={})
    for stage in stages():
        for each in stage.plan(stage, planned):
            planned.planned[each.name] = each
    return Plan(planned, planned.planned)
