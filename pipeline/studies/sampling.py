"""Optuna's samplers as a pure function: from the results so far to the next generation.

Nothing is kept between two calls: a study is made of the results, and its sampler is seeded by the
study's seed and the generation's number. Of a generation all runs are drawn before any is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.evolution.quiet import quiet_optuna
from pipeline.files import Json, encode
from pipeline.settings.study import StudyConfig
from pipeline.studies.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

GENERATIONS = 10_000
"""Seeds of a study, so that no two studies draw the same."""
ATTEMPTS = 20
"""So many draws for each run that is asked for, before known values are taken for all there are."""
PARENTS = 2
"""Of a child: so many evolution needs at least."""


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
    with quiet_optuna():
        from optuna import create_study
        from optuna.samplers import RandomSampler

        objectives = len(settings.objectives)
        study = create_study(directions=["minimize"] * objectives)
        study.add_trials([_trial_of(each, space) for each in results])
        last = results[-1].generation if results else -1
        completed = sum(each.generation == last and each.losses is not None for each in results)
        study.sampler = _sampler(settings, last + 1, completed)
        known = {encode(dict(each.values)) for each in results}
        new = _drawn(study, space, count, known)
        if len(new) < count:
            study.sampler = RandomSampler(seed=_seed(settings, last + 1))
            new += _drawn(study, space, count - len(new), known)
        return new


def _trial_of(result: Result, space: Space) -> "FrozenTrial":
    """What a study takes for one of its own trials, of the generation that it was proposed in.

    A trial that is queued and asked for anew would be of no generation.
    """
    from optuna.samplers import NSGAIISampler
    from optuna.trial import TrialState, create_trial

    of_generation = NSGAIISampler._get_generation_key()
    failed = result.losses is None
    return create_trial(
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        values=result.losses,
        params=space.params_of(result.values),
        distributions=space.distributions(),
        system_attrs={of_generation: result.generation},
        constraints=None if failed else dict(result.excesses),
    )


def _drawn(study: "Study", space: Space, count: int, known: set[str]) -> list[dict[str, Json]]:
    """So many values that are not known, and are from now on; fewer after many attempts."""
    new: list[dict[str, Json]] = []
    distributions = space.distributions()
    for _ in range(ATTEMPTS * count):
        if len(new) == count:
            break
        values = space.values_of(study.ask(distributions).params)
        if (text := encode(values)) not in known:
            known.add(text)
            new.append(values)
    return new


def _sampler(settings: StudyConfig, generation: int, completed: int) -> "BaseSampler":
    """The sampler of a generation; ``completed`` is how many of the one before did not fail.

    That counts as whole with these, so that a failed run does not have it drawn once more.
    """
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    seed = _seed(settings, generation)
    match settings.method:
        case "nsga2":
            evolution = NSGAIISampler(population_size=settings.population, seed=seed)
            if completed >= PARENTS:
                evolution.population_size = min(completed, settings.population)
            return evolution
        case "tpe":
            return TPESampler(
                seed=seed,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=settings.population,
            )
        case "random":
            return RandomSampler(seed=seed)


def _seed(settings: StudyConfig, generation: int) -> int:
    return settings.seed * GENERATIONS + generation
