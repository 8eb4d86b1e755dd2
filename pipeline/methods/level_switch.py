"""Level switch: from MultiPruner's state by moves that keep the ratio (arXiv 2410.14649).

EvoPress and Tyr-the-Pruner search so; their moves and their elimination on ever more text are kept.
How many children and generations there are is ours.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.errors import ConfigError
from pipeline.evolution.base import Measure
from pipeline.evolution.level_switch import LevelSwitch
from pipeline.files import digest_of, is_file
from pipeline.methods.multipruner import GreedyDimensions, MultiPrunerConfig
from pipeline.models.ordering import FILE, state_in
from pipeline.pruning.phases import Phase
from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import EXPERT_WIDTH, Unit
from pipeline.settings.section import SomeText

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


def _is_falling(value: list[int]) -> list[int]:
    if len(value) != 2 or not value[0] >= value[1] >= 1:  # noqa: PLR2004 - the text has three pieces
        raise ValueError(
            "allowed are two numbers from 1 on, the second not above the first, e.g. [8,2]: "
            "children that are evaluated on 16k tokens, and those on all"
        )
    return value


class LevelSwitchConfig(MultiPrunerConfig):
    """MultiPruner's state, then moves between layers that keep the ratio (arXiv 2410.14649)."""

    fitness: Measure = "divergence"
    """What a state is judged by, on the calibration windows for blocks: divergence is KL(dense ||
    state) of the next tokens, perplexity is that of the text."""
    generations: int = Field(50, ge=1)
    """Times that the best state so far has children."""
    offspring: int = Field(32, ge=1)
    """Children of a generation; all are evaluated on the first 2k tokens."""
    survivors: Annotated[list[int], AfterValidator(_is_falling)] = Field([8, 2])
    """Of the children, how many are evaluated on 16k tokens, and how many on all."""
    seed: int = 0
    """Another seed draws other moves; what it meets that was evaluated before is found."""
    start: SomeText | None = None
    """A pruning_config.json to start from, in the place of where MultiPruner ends; its widths count
    in this run's order of channels. null starts from MultiPruner."""


class LevelSwitchMethod(GreedyDimensions[LevelSwitchConfig]):
    """MultiPruner's phases, then (1 + lambda) search at the ratio that they ended in."""

    name = "level_switch"
    section = LevelSwitchConfig

    def phases(self, settings: LevelSwitchConfig, source: "ModelSource") -> tuple[Phase, ...]:
        """MultiPruner's; nothing goes in them where a state to start from is given."""
        phases = super().phases(settings, source)
        if settings.start is None:
            return phases
        return tuple(replace(phase, end_percent=0.0) for phase in phases)

    def search(self, settings: LevelSwitchConfig) -> LevelSwitch:
        """As configured."""
        return LevelSwitch(
            settings.fitness,
            settings.generations,
            settings.offspring,
            settings.survivors,
            settings.seed,
            Path(settings.start) if settings.start else None,
        )

    def search_recipe(self, settings: LevelSwitchConfig) -> dict[str, Any]:
        """Also the state to start from, and the order of channels beside it."""
        recipe = super().search_recipe(settings)
        if settings.start is None:
            return recipe
        path = Path(settings.start)
        files = [each for each in (path, path.parent / FILE) if is_file(each)]
        return recipe | {"start": [digest_of(each) for each in files]}

    def narrows(
        self, settings: LevelSwitchConfig, source: "ModelSource", unit: Unit | None = None
    ) -> bool:
        """As the phases do; with a given state, as that one is."""
        if settings.start is None:
            return super().narrows(settings, source, unit)
        shape = source.shape
        state, full = state_in(Path(settings.start), shape), PruningState.dense(shape)
        kinds = unit.kinds if unit else BLOCK_KINDS
        return any(state.widths(kind) != full.widths(kind) for kind in kinds)

    def label(self, settings: LevelSwitchConfig) -> str:
        """Its name, and the distribution where it starts from MultiPruner."""
        return self.name if settings.start else f"{self.name} {super().label(settings)}"

    def unusual(self, settings: LevelSwitchConfig) -> list[str]:
        """As for MultiPruner; the fitness, and the seed."""
        start = [f"from {settings.start}"] if settings.start else []
        return [*super().unusual(settings), *start, settings.fitness, f"seed {settings.seed}"]

    def tags(self, settings: LevelSwitchConfig) -> list[str]:  # noqa: ARG002
        """The name."""
        return [self.name]

    def problems(self, settings: LevelSwitchConfig, source: "ModelSource") -> list[str]:
        """As for MultiPruner; a given state fits the model and is at the target."""
        problems = super().problems(settings, source)
        if settings.survivors[0] > settings.offspring:
            problems.append(
                f"prune.survivors: {settings.survivors[0]} is wrong; allowed is up to "
                f"{settings.offspring}: prune.offspring has no more children"
            )
        if any(EXPERT_WIDTH in phase.units for phase in self.phases(settings, source)):
            problems.append(
                "prune.distribution: MLP channels of mixtures have a share, and this search moves "
                "experts, not channels inside them; give MLP channels a share of 0, e.g. "
                "[44,0,4,52]"
            )
        if settings.start is None:
            return problems
        try:
            state = state_in(Path(settings.start), source.shape)
        except ConfigError as error:
            return [*problems, *(f"prune.start: {problem}" for problem in error.problems)]
        ratio = state.ratio_percent
        if state.expert_widths:
            problems.append(
                f"prune.start: {settings.start} has experts that lost channels, and this search "
                "moves experts, not channels inside them; start from another state"
            )
        if ratio < settings.target_ratio:
            most = math.floor(ratio * 100) / 100
            problems.append(
                f"prune.start: {settings.start} has {most:.2f} % removed, less than "
                f"prune.target_ratio={settings.target_ratio:g}, and the search keeps the ratio; "
                f"give a target up to {most:.2f}, or another state"
            )
        return problems


METHOD = LevelSwitchMethod()
