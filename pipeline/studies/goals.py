"""What is wanted of a pruned model in numbers, and how much of it a finished run has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError, StageError
from pipeline.measure.intervals import Interval
from pipeline.measure.record import Part, speed_up
from pipeline.models.source import ModelSource
from pipeline.pruning.state import PruningState
from pipeline.report.compare.records import ComparedRun
from pipeline.settings.core import Config, UntilConfig
from pipeline.stages.probe import ProbeConfig
from pipeline.studies.base import Outcome

GIGABYTE = 1e9
RATIO = "ratio_percent"
"""In a run's outcome what it removed."""
LOW, HIGH = "_low", "_high"
"""After a speed's name: the ends of its interval."""
SPEEDS: dict[str, Part] = {"decode_speedup": "decode", "prefill_speedup": "prefill"}
"""The keys that ask for speeds."""
WEIGHTS, CACHE = "weights_gb", "kv_cache_bytes_per_token"


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that is wanted."""

    key: str
    """Of ``prune.until``, and in a run's outcome."""
    wanted: float
    dense: float
    """The dense model's; it says whether more or less is wanted."""

    @property
    def is_timed(self) -> bool:
        """Whether it is measured, and so has an interval."""
        return self.key in SPEEDS

    def counts(self, outcome: Outcome) -> float:
        """What counts of an outcome: of a speed the lower end of its interval."""
        return outcome[self.key + LOW if self.is_timed else self.key]

    def is_met(self, outcome: Outcome) -> bool:
        """Whether the wanted number is reached."""
        value = self.counts(outcome)
        return value >= self.wanted if self.wanted > self.dense else value <= self.wanted

    def may_be_met(self, outcome: Outcome) -> bool:
        """Whether it is met within what the measurement is sure of."""
        return self._is_met_at(outcome, HIGH)

    def is_likely_met(self, outcome: Outcome) -> bool:
        """Whether it is met by the median, however sure that is."""
        return self._is_met_at(outcome, "")

    def _is_met_at(self, outcome: Outcome, end: str) -> bool:
        if not self.is_timed:
            return self.is_met(outcome)
        return outcome[self.key + end] >= self.wanted

    def share(self, outcome: Outcome) -> float:
        """How much of the way from the dense model is gone; 1 is all of it."""
        return (self.counts(outcome) - self.dense) / (self.wanted - self.dense)

    def is_alike(self, one: Outcome, other: Outcome) -> bool:
        """Whether two models may have the same: each is within the other's interval."""
        if not self.is_timed:
            return one[self.key] == other[self.key]
        return self._covers(one, other) and self._covers(other, one)

    def _covers(self, one: Outcome, other: Outcome) -> bool:
        return one[self.key + LOW] <= other[self.key] <= one[self.key + HIGH]

    def in_words(self, outcome: Outcome) -> str:
        """What an outcome has of it, of a speed with its interval."""
        value = outcome[self.key]
        if not self.is_timed:
            return f"{self.key} {value:.6g}"
        low, high = outcome[self.key + LOW], outcome[self.key + HIGH]
        # outwards, so that a low end of 1.1971 is not shown as the 1.20 that it lacks
        low, high = math.floor(100 * low + 1e-9) / 100, math.ceil(100 * high - 1e-9) / 100
        return f"{self.key} {value:.2f} ({low:.2f} to {high:.2f})"


def is_asked(config: Config) -> bool:
    """Whether a run's end is to be found by what was measured."""
    return any(value is not None for value in config.prune.until.model_dump().values())


def goals_of(config: Config, source: ModelSource) -> tuple[Goal, ...]:
    """All that ``prune.until`` asks for. Raises ``ConfigError`` with what no run can have."""
    until, dense = config.prune.until, PruningState.dense(source.shape)
    problems = list(_problems(until, config.of(ProbeConfig)))
    goals = []
    for key in (*SPEEDS, WEIGHTS, CACHE):
        wanted = getattr(until, key)
        if wanted is None:
            continue
        goal = Goal(key, wanted, 1.0 if key in SPEEDS else sizes(config, source, dense)[key])
        goals.append(goal)
        if not goal.is_timed and wanted >= goal.dense:
            problems.append(
                f"prune.until.{key}: {wanted:g} is wrong; allowed is less than {goal.dense:.6g}, "
                "which the dense model has"
            )
    if problems:
        raise ConfigError(problems)
    return tuple(goals)


def _problems(until: UntilConfig, probe: ProbeConfig) -> list[str]:
    if until.workload is None:
        return []
    if all(getattr(until, key) is None for key in SPEEDS):
        keys = " or ".join(f"prune.until.{key}" for key in SPEEDS)
        return [f"prune.until.workload: no speed is asked for; add {keys}, or leave it out"]
    if until.workload not in probe.workloads:
        return [
            f"prune.until.workload: {until.workload!r} is not there; allowed: "
            f"{', '.join(probe.workloads)}"
        ]
    return []


def sizes(config: Config, source: ModelSource, state: PruningState) -> dict[str, float]:
    """Of a state, what is counted without measuring."""
    from pipeline.models.loading import DTYPES

    itemsize = DTYPES[config.model.dtype].itemsize
    return {
        WEIGHTS: state.params * itemsize / GIGABYTE,
        CACHE: source.cached_per_token(state) * itemsize,
    }


def least_ratio(config: Config, source: ModelSource, goal: Goal) -> float:
    """The ratio from which on the weights are as small as wanted, exactly; in percent."""
    from pipeline.models.loading import DTYPES

    total = source.shape.total_params
    itemsize = DTYPES[config.model.dtype].itemsize
    most = int(goal.wanted * GIGABYTE / itemsize)
    # a parameter more or less where the division was not exact
    while most * itemsize / GIGABYTE > goal.wanted:
        most -= 1
    while (most + 1) * itemsize / GIGABYTE <= goal.wanted:
        most += 1
    return (total - most) / total * 100


def outcome_of(
    run: ComparedRun, config: Config, source: ModelSource, goals: Sequence[Goal]
) -> dict[str, float]:
    """What a finished run has. Raises ``StageError`` where it was not timed as the dense model."""
    state = run.pruning
    if state is None:
        raise StageError(f"prune.until: {run.folder} does not say where it ended")
    outcome = {RATIO: state.ratio_percent, **sizes(config, source, state)}
    at = run.at(config.prune.until.workload)
    for goal in goals:
        if goal.is_timed:
            gain = speed_up(at.dense.latency, at.pruned.latency, SPEEDS[goal.key])
            if gain is None:
                raise StageError(
                    f"prune.until: {run.folder} has no speed against the dense model: the workload "
                    "was left out, or the two were not timed alike"
                )
            outcome |= _with_ends(goal.key, gain)
    return outcome


def _with_ends(key: str, value: Interval) -> dict[str, float]:
    return {key: value.median, key + LOW: value.low, key + HIGH: value.high}
