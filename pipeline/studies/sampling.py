"""Optuna's samplers as a pure function: from the results so far to the next generation.

Nothing is kept between two calls. The study is told all results again, generation by generation,
and its sampler is seeded by the study's seed and the generation's number.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.files import Json, encode
from pipeline.settings.study import StudyConfig
from pipeline.studies.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

GENERATIONS = 10_000
"""Seeds of a study, so that no two studies draw the same."""
ATTEMPTS = 20
"""So many draws for each run that is asked for, before known values are taken for all there are."""
TWO = 2
"""Parents, which evolution needs at least."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of proposed values."""

    generation: int
    values: Mapping[str, Json]
    losses: tuple[float, ...] | None
    """By objective, less is better; None where the run failed."""
    excesses: Mapping[str, float] = field(default_factory=dict)
    """Of constraints by their text; at most 0 where they are met."""


def proposed(
    space: Space, settings: StudyConfig, results: Sequence[Result], count: int
) -> list[dict[str, Json]]:
    """Values for the next generation, none of them known; fewer where there are no more.

    ``results`` are in the order in which they were proposed.
    """
    with quiet():
        from optuna import create_study
        from optuna.samplers import RandomSampler

        objectives = len(settings.objectives)
        study = create_study(directions=["minimize"] * objectives)
        completed: int | None = None
        generation = 0
        for number, group in groupby(results, key=lambda each: each.generation):
            told = list(group)
            study.sampler = _sampler(settings, number, completed, replays=True)
            _tell(study, space, told)
            completed = sum(each.losses is not None for each in told)
            generation = number + 1
        study.sampler = _sampler(settings, generation, completed, replays=False)
        known = {encode(dict(each.values)) for each in results}
        new = _drawn(study, space, count, known)
        if len(new) < count:
            study.sampler = RandomSampler(seed=_seed(settings, generation))
            new += _drawn(study, space, count - len(new), known)
        return new


def _tell(study: "Study", space: Space, told: Sequence[Result]) -> None:
    """All parameters of a generation are suggested before any result is told."""
    from optuna.trial import TrialState

    asked: list[Trial] = []
    for each in told:
        study.enqueue_trial(space.params_of(each.values))
        trial = study.ask()
        space.suggest(trial)
        asked.append(trial)
    for trial, each in zip(asked, told, strict=True):
        if each.losses is None:
            study.tell(trial, state=TrialState.FAIL)
            continue
        for name, excess in each.excesses.items():
            trial.set_constraint(name, excess)
        study.tell(trial, list(each.losses))


def _drawn(study: "Study", space: Space, count: int, known: set[str]) -> list[dict[str, Json]]:
    """So many values that are not known, and are from now on; fewer after many attempts."""
    new: list[dict[str, Json]] = []
    for _ in range(ATTEMPTS * count):
        if len(new) == count:
            break
        values = space.suggest(study.ask())
        if (text := encode(values)) not in known:
            known.add(text)
            new.append(values)
    return new


def _sampler(
    settings: StudyConfig, generation: int, completed: int | None, *, replays: bool
) -> "BaseSampler":
    """The sampler of a generation; ``completed`` is how many of the one before did not fail.

    A generation counts as whole with these, so that a failed run does not have its generation
    drawn once more. What is told again needs of a sampler only that it counts generations.
    """
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    seed = _seed(settings, generation)
    if settings.method == "nsga2":
        evolution = NSGAIISampler(population_size=settings.population, seed=seed)
        if completed is not None and completed >= TWO:
            evolution.population_size = min(completed, settings.population)
        return evolution
    if settings.method == "tpe" and not replays:
        return TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,
            n_startup_trials=settings.population,
        )
    return RandomSampler(seed=seed)


def _seed(settings: StudyConfig, generation: int) -> int:
    return settings.seed * GENERATIONS + generation


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Optuna logs and warns of, which are its own words for what is meant here."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
