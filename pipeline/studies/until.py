"""``prune.until``: pruning ends where a model was measured to have what is wanted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.models.source import ModelSource
from pipeline.plan.run import refused_exports
from pipeline.report.compare.records import ComparedRun, read_run
from pipeline.settings.core import Config, UntilConfig
from pipeline.settings.section import Section
from pipeline.stages.evaluate import EvaluateConfig, prunes
from pipeline.stages.export import ExportConfig
from pipeline.stages.probe import ProbeConfig
from pipeline.stages.recover import RecoverConfig
from pipeline.studies.base import Ending, Kind, Outcome, Study, Trial
from pipeline.studies.bisection import (
    AGAIN,
    ENDS,
    EVERY,
    TARGET,
    Bisection,
    ended,
    is_limit,
    tried_of,
)
from pipeline.studies.goals import (
    RATIO,
    WEIGHTS,
    Goal,
    goals_of,
    is_asked,
    least_ratio,
    outcome_of,
)
from pipeline.studies.reach import finest_percent, most_percent, round_step

ENDS_ALONE: Mapping[str, Any] = {"every": ENDS, "text": None, "tasks": []}
"""Of ``probe``: only both ends are measured, without text."""
OF_NOBODY: Mapping[str, Any] = {"name": None, "dir": None, "pictures": []}
"""Of ``run``: on the way no run has the name that was given for the one at the end."""
REPEATS = 15
"""Timed repetitions where the user did not ask for a probe; graphs need two."""


@dataclass(frozen=True)
class Until(Study):
    """The search for the least ratio of a configuration."""

    config: Config
    source: ModelSource
    goals: tuple[Goal, ...]
    search: Bisection
    has_cap: bool
    """Whether the user said how much may go at most."""

    @classmethod
    def of(cls, config: Config, source: ModelSource, typed: Collection[str]) -> "Until":
        """The search. Raises ``ConfigError`` with what is wrong; ``typed`` are the user's keys."""
        if not prunes(config):
            raise ConfigError(
                ["prune.until: nothing is pruned with evaluate.pruning_config; leave one out"]
            )
        goals = goals_of(config, source)
        exact = [goal for goal in goals if goal.key == WEIGHTS]
        least = max((least_ratio(config, source, goal) for goal in exact), default=0.0)
        likely, most = most_percent(config, source)
        cap, has_cap = likely if least <= likely else most, TARGET in typed
        if has_cap:
            cap = config.prune.target_ratio
        problems = refused_exports(config, source)
        if cap > most:
            problems.append(
                f"prune.target_ratio: {cap:g} is wrong; allowed is up to {most:.2f}: "
                f"prune={config.prune.method} can remove no more of this model"
            )
        elif least > cap:
            problems.append(_too_small(exact[0], least, cap, has_cap=has_cap))
        if problems:
            raise ConfigError(problems)
        others = tuple(goal for goal in goals if goal.key != WEIGHTS)
        step = round_step(finest_percent(config, source, cap))
        guess = max((_guess(goal) for goal in others), default=0.0)
        return cls(config, source, goals, Bisection(others, least, cap, step, guess), has_cap)

    def next(self, trials: Sequence[Trial]) -> Sequence[Mapping[str, Json]]:
        """The next ratio; the last run is the configuration itself at the one that was found."""
        return self.search.next(trials)

    def outcome(self, run: ComparedRun) -> dict[str, float]:
        """What the run has of what is wanted."""
        return outcome_of(run, self.config, self.source, self.goals)

    def outcome_in_words(self, trial: Trial) -> str:
        """What a run has of what is wanted."""
        assert trial.outcome is not None
        has = ", ".join(goal.in_words(trial.outcome) for goal in self.goals)
        return f"prune.target_ratio={trial.values[TARGET]:g}: {has}"

    def configured(self, config: Config, values: Mapping[str, Json]) -> Config:
        """Timed at its end, and neither evaluated nor recovered nor exported before the last."""
        prune = config.prune.model_copy(update={"until": UntilConfig.model_validate({})})
        again = {"again": config.of(ProbeConfig).again}
        probe = self._with_speeds(self.config.of(ProbeConfig)).model_copy(update=again)
        sections: dict[str, Any] = {"prune": prune, "probe": probe}
        if EVERY in values:
            sections |= {
                "probe": self._at_the_end(probe),
                "run": config.run.model_copy(update=OF_NOBODY),
                "recover": config.of(RecoverConfig).model_copy(update={"steps": []}),
                "evaluate": _left_out(config.of(EvaluateConfig)),
                "export": _left_out(config.of(ExportConfig)),
            }
        return config.model_copy(update=sections)

    def goes_on_after(self, trial: Trial) -> bool:
        """A ratio that cannot be reached is a limit."""
        return is_limit(trial)

    def is_apart(self, values: Mapping[str, Json]) -> bool:
        """What is timed again is timed in another process than before."""
        return EVERY in values and bool(values[AGAIN])

    @property
    def identity(self) -> Mapping[str, Json]:
        """What is wanted."""
        return {f"prune.until.{key}": value for key, value in self._until.items()}

    @property
    def name(self) -> str:
        """The method, and what is wanted."""
        return "-".join(["until", self.config.prune.method, *map(_short, self.goals)])

    @property
    def budget(self) -> str:
        """How many runs there may be, and what is measured."""
        if not self.search.goals:
            return f"one run: {self.goals[0].key} is counted, not measured"
        most = f"at most {self.search.most_runs} runs, fewer as a rule"
        where = f"up to {self.search.cap:g} % of the parameters, {self.search.step:g} % apart"
        turned_on = self._with_speeds(probe := self.config.of(ProbeConfig)) != probe
        timed = "; speeds are measured at the end of each" if turned_on else ""
        return f"{most}, {where}{timed}"

    def ending(self, trials: Sequence[Trial]) -> Ending | None:
        """Where the search ended; None before that."""
        if self.search.next(trials):
            return None
        found = ended(trials)
        facts = {
            "wanted": self._until,
            "method": self.config.prune.method,
            "cap": self.search.cap,
            "step": self.search.step,
            "workload": self._workload if self.search.is_timed else None,
            "device": self._device(trials),
            "tried": [
                {"target_ratio": each.ratio, "measured": list(map(dict, each.outcomes))}
                for each in sorted(tried_of(trials), key=lambda each: each.ratio)
            ],
        }
        if found is None:
            return Ending(self._why_not(trials), {**facts, "found": None})
        assert found.outcome is not None
        at = {"target_ratio": found.values[TARGET], "run": found.run}
        facts["found"] = {**at, **{goal.key: found.outcome[goal.key] for goal in self.goals}}
        return Ending(self._found(found, trials), facts, found.run)

    def _device(self, trials: Sequence[Trial]) -> str | None:
        """Where speeds were measured."""
        runs = [Path(trial.run) for trial in trials if trial.run and self.search.is_timed]
        return next((read_run(path).device for path in reversed(runs) if path.exists()), None)

    def _found(self, found: Trial, trials: Sequence[Trial]) -> str:
        """The ratio, what was measured there, and what is just below it."""
        assert found.outcome is not None
        ratio = found.values[TARGET]
        tried = {each.ratio: each.outcomes for each in tried_of(trials)}
        has = _words(self.goals, tried.get(ratio, (found.outcome,)))
        text = (
            f"prune.until is met at prune.target_ratio={ratio!r} ({found.outcome[RATIO]:.2f} % "
            f"removed): {'; '.join([has, *self._at(trials)])}"
        )
        if not self.search.goals or (below := self.search.below(trials)) is None:
            return text
        return f"{text}. At {below.ratio:g}: {_words(self.search.goals, below.outcomes)}"

    def _why_not(self, trials: Sequence[Trial]) -> str:
        """The run that failed, or how far it came."""
        if failed := [t for t in trials if t.state == "failed" and not is_limit(t)]:
            return (
                f"prune.until: the run with prune.target_ratio={failed[0].values[TARGET]:g} "
                f"failed: {failed[0].reason}; sweep.name=NAME tries it again, with all that is done"
            )
        wanted = ", ".join(f"{goal.key}={goal.wanted:g}" for goal in self.goals)
        limits = [trial.values[TARGET] for trial in trials if is_limit(trial)]
        cap = min([self.search.cap, *limits])
        limit = f"prune.target_ratio={cap:g}"
        if limits or not self.has_cap:
            limit += f", about the most that prune={self.config.prune.method} removes"
        text = f"prune.until: {wanted} is out of reach up to {limit}"
        if (best := self.search.best(trials)) is None:
            return text
        counts = ["the lower ends count"] if self.search.is_timed else []
        has = "; ".join([_words(self.search.goals, best.outcomes), *self._at(trials), *counts])
        return f"{text}; at {best.ratio:g} it came to {has}"

    def _at(self, trials: Sequence[Trial]) -> list[str]:
        """What speeds were measured at, and where."""
        device = self._device(trials)
        on = f" on {device}" if device else ""
        return [f"workload {self._workload}{on}"] if self.search.is_timed else []

    @property
    def _workload(self) -> str:
        named = self.config.prune.until.workload
        return named or next(iter(self.config.of(ProbeConfig).workloads))

    def _with_speeds(self, probe: ProbeConfig) -> ProbeConfig:
        """The user's probe; where it measures no speed and one is wanted, both ends are timed."""
        if not self.search.is_timed or (probe.every and probe.latency):
            return probe
        if probe.every:
            return probe.model_copy(update={"latency": True})
        repeats = max(REPEATS, probe.repeats)
        return probe.model_copy(update={**ENDS_ALONE, "latency": True, "repeats": repeats})

    def _at_the_end(self, probe: ProbeConfig) -> ProbeConfig:
        """Both ends timed with the workload that counts, and nothing else measured."""
        if not self.search.is_timed:
            return probe.model_copy(update={"every": 0})
        workloads = {self._workload: probe.workloads[self._workload]}
        return probe.model_copy(update={**ENDS_ALONE, "workloads": workloads})

    @property
    def _until(self) -> dict[str, Any]:
        """What is wanted, as it was given."""
        values = self.config.prune.until.model_dump()
        return {key: value for key, value in values.items() if value is not None}


def _words(goals: Sequence[Goal], outcomes: Sequence[Outcome]) -> str:
    """What measurements of one ratio had."""
    return "; ".join(
        ", again ".join(map(goal.in_words, outcomes if goal.is_timed else outcomes[:1]))
        for goal in goals
    )


def _left_out(section: Section) -> Section:
    """The section with nothing asked for."""
    return type(section).model_validate({})


def _short(goal: Goal) -> str:
    return f"{goal.key.removesuffix('_per_token')}-{goal.wanted:g}"


def _guess(goal: Goal) -> float:
    """The ratio where it would be met if time and cache were as the weights are."""
    share = 1 / goal.wanted if goal.is_timed else goal.wanted / goal.dense
    return 100 * (1 - share)


def _too_small(goal: Goal, least: float, cap: float, *, has_cap: bool) -> str:
    limit = (
        f"prune.target_ratio={cap:g} is the most that may go"
        if has_cap
        else f"at most {cap:.2f} % can go of this model"
    )
    return (
        f"prune.until.{goal.key}: {goal.wanted:g} is wrong: {least:.2f} % would have to go, and "
        f"{limit}; allowed is from {goal.dense * (1 - cap / 100):.6g} on"
    )


KIND = Kind(is_asked, Until.of)
