"""How far a method can go with a model, and how fine its steps are. Counted without weights."""

import math
from collections.abc import Callable, Iterator, Sequence

from pipeline.methods import method_of
from pipeline.models.source import ModelSource
from pipeline.pruning.phases import Phase
from pipeline.pruning.play import likely
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate
from pipeline.settings.core import Config

FINEST_PERCENT = 0.01
"""Ratios closer together are one and the same here."""
HALVINGS = 14


def phases_at(config: Config, source: ModelSource, ratio: float) -> tuple[Phase, ...]:
    """The dimensions with a target of ``ratio`` percent."""
    prune = config.prune.model_copy(update={"target_ratio": ratio})
    return method_of(prune).phases(prune, source)


Choice = Callable[[PruningState, Sequence[Candidate]], Candidate]
CHOICES: tuple[Choice, ...] = (likely, lambda _, each: each[0], lambda _, each: each[-1])
"""Which whole pieces go is not known: likely ones, or those that come first, or last."""


def most_percent(config: Config, source: ModelSource) -> tuple[float, float]:
    """The highest targets that the method reaches if likely pieces go, and if the best for it do.

    In percent, rounded down to two digits. They differ where dimensions share a target: blocks that
    went as a whole leave less to the others.
    """
    most = [_most(config, source, choice) for choice in CHOICES]
    return most[0], max(most)


def _most(config: Config, source: ModelSource, choice: Choice) -> float:
    walks = _Walks(choice)
    reached, missed = 0.0, 100.0
    for _ in range(HALVINGS):
        middle = (reached + missed) / 2
        phases = phases_at(config, source, middle)
        if _reaches(phases, PruningState.dense(source.shape), middle, walks):
            reached = middle
        else:
            missed = middle
    return math.floor(reached * 100) / 100


class _Walks:
    """States along dimensions of whole pieces, each walked once for all targets."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._states: dict[tuple[str, PruningState], list[PruningState]] = {}

    def end(self, phase: Phase, start: PruningState, percent: float) -> PruningState:
        """The first state with at least ``percent`` removed; there must be one."""
        states = self._states.setdefault((phase.dimension, start), [start])
        while states[-1].ratio_percent < percent:
            chosen = self._choice(states[-1], phase.candidates(states[-1]))
            states.append(states[-1].without(chosen))
        return next(state for state in states if state.ratio_percent >= percent)


def _reaches(phases: Sequence[Phase], state: PruningState, target: float, walks: _Walks) -> bool:
    narrowed = 0.0  # percent, of blocks that stay
    for phase in phases:
        empty = phase.exhausted(state)
        if empty.ratio_percent + narrowed <= phase.end_percent:
            state = empty
        elif all(unit.is_whole for unit in phase.units):
            state = walks.end(phase, state, phase.end_percent - narrowed)
        else:
            narrowed += max(0.0, phase.end_percent - state.ratio_percent - narrowed)
    return state.ratio_percent + narrowed >= target


def finest_percent(config: Config, source: ModelSource, ratio: float) -> float:
    """The least that a step takes on the way to ``ratio``, in percent of all parameters."""
    dense = PruningState.dense(source.shape)
    steps = _first_steps(phases_at(config, source, ratio), dense)
    return max(FINEST_PERCENT, min(steps, default=100.0))


def _first_steps(phases: Sequence[Phase], dense: PruningState) -> Iterator[float]:
    begins = 0.0
    for phase in phases:
        if phase.end_percent > begins:
            for candidate in phase.candidates(dense):
                yield dense.without(candidate).ratio_percent
        begins = phase.end_percent


def round_step(percent: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above it."""
    power = 10.0 ** math.floor(math.log10(percent))
    return round(max(each * power for each in (1, 2, 5) if each * power <= percent * 1.000001), 12)
