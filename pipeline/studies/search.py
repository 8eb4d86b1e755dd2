"""``study.*``: a search over configuration keys for what is best in several quantities."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.config.overrides import groups
from pipeline.config.schema import is_known, unknown_key, validate
from pipeline.errors import ConfigError, StageError
from pipeline.files import Json
from pipeline.methods import method_of
from pipeline.models.source import ModelSource
from pipeline.report.compare.records import ComparedRun
from pipeline.settings.core import Config, PruneConfig
from pipeline.settings.study import StudyConfig
from pipeline.studies.base import Kind, Outcome, Study, Trial
from pipeline.studies.quantities import Constraint, Objective, Term, constraint_of, objective_of
from pipeline.studies.sampling import Result, proposed
from pipeline.studies.space import Space

KEPT = ("objectives", "constraints", "method", "population", "seed", "reference")
"""Keys besides the ranges that a study keeps to once it has begun."""
SPACE = f"{StudyConfig.key}.space"


@dataclass(frozen=True)
class Search(Study):
    """The search of a configuration."""

    settings: StudyConfig

    @cached_property
    def space(self) -> Space:
        """What varies."""
        return Space(dict(sorted(self.settings.space.items())))  # in whatever order it is typed

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What counts."""
        return tuple(map(objective_of, self.settings.objectives))

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a run must have."""
        return tuple(map(constraint_of, self.settings.constraints))

    def next(self, trials: Sequence[Trial]) -> Sequence[Mapping[str, Json]]:
        """A generation, or what the budget has left for."""
        settings = self.settings
        count = settings.population
        if settings.runs is not None:
            count = min(count, settings.runs - len(trials))
        spent = sum(trial.gpu_hours for trial in trials)
        if count <= 0 or (settings.gpu_hours is not None and spent >= settings.gpu_hours):
            return ()
        return proposed(self.space, settings, list(map(self.result, trials)), count)

    def result(self, trial: Trial) -> Result:
        """What a sampler is told of a trial."""
        outcome = trial.outcome
        if outcome is None:
            return Result(trial.generation, trial.values, None)
        return Result(trial.generation, trial.values, self.losses(outcome), self.excesses(outcome))

    def losses(self, outcome: Outcome) -> tuple[float, ...]:
        """By objective; less is better."""
        return tuple(each.loss(outcome[each.term.text]) for each in self.objectives)

    def excesses(self, outcome: Outcome) -> dict[str, float]:
        """By how much constraints are missed, by their text; at most 0 where they are met."""
        return {each.text: each.excess(outcome) for each in self.constraints}

    def outcome(self, run: ComparedRun) -> dict[str, float]:
        """Every quantity of objectives and constraints; the dense model's where it is a bound."""
        read: dict[str, float] = {}
        for term, pruned in self._read:
            value = term.of(run, pruned)
            name = term.text if pruned else term.of_dense
            if value is None or not math.isfinite(value.value):
                raise StageError(f"{name}: {run.folder} has no number for it")
            read[name] = value.value
        return read

    @property
    def _read(self) -> Iterator[tuple[Term, bool]]:
        yield from ((each.term, True) for each in self.objectives)
        yield from ((each.term, True) for each in self.constraints)
        yield from ((each.term, False) for each in self.constraints if each.of_dense)

    @property
    def identity(self) -> Mapping[str, Json]:
        """All that the proposals depend on, and from where the hypervolume is measured."""
        values = self.settings.model_dump(mode="json", exclude_none=True)
        own = {f"{StudyConfig.key}.{name}": values.get(name) for name in KEPT}
        ranges = {f"{SPACE}.{key}": each for key, each in values["space"].items()}
        return {SPACE: sorted(values["space"]), **ranges, **own}

    @classmethod
    def of_identity(cls, identity: Mapping[str, Json]) -> "Search | None":
        """The search of which this is the identity; None where it is of another kind."""
        if SPACE not in identity:
            return None
        own = {name: identity[f"{StudyConfig.key}.{name}"] for name in KEPT}
        ranges = {key: identity[f"{SPACE}.{key}"] for key in identity[SPACE]}
        return cls(StudyConfig.model_validate({**own, "space": ranges}))

    @property
    def budget(self) -> str:
        """How many runs, and what proposes them."""
        settings = self.settings
        parts = [f"{settings.runs} runs" if settings.runs else ""]
        parts.append(f"{settings.gpu_hours:g} GPU hours" if settings.gpu_hours else "")
        return f"budget {' or '.join(filter(None, parts))}, {self.in_words}"

    @property
    def in_words(self) -> str:
        """What proposes how many runs, and what for."""
        settings = self.settings
        demands = "".join(f", {text}" for text in settings.constraints)
        return (
            f"{settings.population} at a time by {settings.method}, seed {settings.seed}: "
            f"{', '.join(settings.objectives)}{demands}"
        )


def _search(config: Config, source: ModelSource, _: Collection[str]) -> Search:
    """The search that a configuration asks for. Raises ``ConfigError`` with every problem."""
    problems = [*_of_space(config, source), *_of_terms(config), *_of_budget(config.study)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Search(config.study)


def _is_wanted(config: Config) -> bool:
    study = config.study
    return bool(study.space or study.objectives or study.constraints)


def _of_budget(study: StudyConfig) -> Iterator[str]:
    if study.runs is None and study.gpu_hours is None:
        yield "study.runs: the study has no budget; give study.runs=48 or study.gpu_hours=10"
    if study.runs is not None and study.runs < study.population:
        yield (
            f"study.runs: {study.runs} is less than one generation of study.population="
            f"{study.population}; allowed is {study.population} or more, or a smaller population"
        )


def _of_terms(config: Config) -> Iterator[str]:
    study = config.study
    if not study.objectives:
        yield 'study.objectives: there is none; give e.g. study.objectives=["minimize ppl"]'
    terms: list[Term] = []
    for key, texts, parse in (
        ("objectives", study.objectives, objective_of),
        ("constraints", study.constraints, constraint_of),
    ):
        for text in texts:
            try:
                term = parse(text).term
            except ValueError as error:
                yield f"study.{key}: {error}"
                continue
            if problem := term.problem(config):
                yield f"study.{key}: {text}: {problem}"
            if parse is objective_of:
                terms.append(term)
    if len(set(terms)) < len(terms):
        yield "study.objectives: one quantity stands there twice; name each once"
    if study.reference is not None and len(study.reference) != len(study.objectives):
        yield (
            f"study.reference: has {len(study.reference)} numbers; allowed is one for each of "
            f"the {len(study.objectives)} objectives"
        )


def _of_space(config: Config, source: ModelSource) -> Iterator[str]:
    space = config.study.space
    if not space:
        yield (
            "study.space: nothing varies; give a range, e.g. "
            "'+study.space.prune.target_ratio={low: 5, high: 25}'"
        )
    known = {}
    for key, given in space.items():
        if key in groups():
            unknown = [each for each in given.choices or [None] if each not in groups()[key]]
            if unknown:
                options = ", ".join(groups()[key])
                yield f"study.space.{key}: {unknown[0]!r} is not there; allowed: {options}"
        elif not is_known(key):
            yield f"study.space.{unknown_key(key)}"
        elif not config.decides(key):
            yield f"study.space.{key}: decides no result, so there is nothing to find out"
        else:
            known[key] = given
    for key, word, value in Space(known).ends():
        if problem := _refused(config, source, key, value):
            yield f"study.space.{key}: its {word} is refused: {problem}"


def _refused(config: Config, source: ModelSource, key: str, value: Json) -> str | None:
    """Why no run can have a value; None where one can."""
    settings: Any = config.model_dump(mode="json")
    *sections, name = key.split(".")
    section = settings
    for each in sections:
        section = section.setdefault(each, {})
    section[name] = value
    typed = () if PruneConfig.key in config.study.space else (key,)
    try:
        with_value = validate(settings, typed)
    except ConfigError as error:
        return error.problems[0]
    prune = with_value.prune
    return next(iter(method_of(prune).problems(prune, source)), None)


KIND = Kind(_is_wanted, _search)
