"""A study on disk, beside its runs, as what a page and a terminal show."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.methods.multipruner import OF_MIXTURES
from pipeline.report.compare.records import ComparedRun
from pipeline.report.compare.study import Goal, Key, Reading, SearchedRun, SearchReport
from pipeline.settings.study import Range
from pipeline.studies.base import Trial
from pipeline.studies.importance import importance
from pipeline.studies.pareto import front, history
from pipeline.studies.record import Record
from pipeline.studies.search import Search
from pipeline.studies.space import SHARES

DISTRIBUTION = "prune.distribution"
BEYOND = 0.1
"""Of the first generation's range: so that its worst runs count for something, too."""


def searches(records: Mapping[str, Record], runs: Iterable[ComparedRun]) -> list[SearchReport]:
    """The searches among studies, with what is known of their runs."""
    by_name = {Path(run.folder).name: run for run in runs}
    found = ((label, each, Search.of_identity(each.identity)) for label, each in records.items())
    return [_report(label, each, search, by_name) for label, each, search in found if search]


def _report(
    label: str, record: Record, search: Search, runs: Mapping[str, ComparedRun]
) -> SearchReport:
    names = _names(search.space.axes())
    searched = [_searched(search, trial, runs, names) for trial in record.trials]
    goals = tuple(each.goal for each in search.objectives)
    losses = {
        run.number: [goal.loss(r.value) for goal, r in zip(goals, run.readings, strict=True)]
        for run in searched
        if run.counts
    }
    numbers = list(losses)
    best = {numbers[place] for place in front(list(losses.values()))}
    reference = _reference(search, searched, goals)
    at = [goal.loss(value) for goal, value in zip(goals, reference, strict=False)]
    return SearchReport(
        label,
        f"{len(searched)} runs, {search.in_words}",
        goals,
        tuple(_key(names[name], each) for name, each in search.space.axes().items()),
        tuple(replace(run, on_front=run.number in best) for run in searched),
        reference,
        tuple(history([losses.get(run.number) for run in searched], at)) if reference else (),
        _importance(search, record.trials, names),
    )


def _names(axes: Collection[str]) -> dict[str, str]:
    """What axes are called: without their section where that is enough."""
    names: dict[str, str] = {}
    ends = [axis.rpartition(".")[2] for axis in axes]
    for axis, end in zip(axes, ends, strict=True):
        names[axis] = end if ends.count(end) == 1 else axis
    for place, dimension in enumerate(OF_MIXTURES):
        if (axis := f"{DISTRIBUTION}{SHARES.format(place)}") in names:
            names[axis] = f"% {dimension}"
    return names


def _key(name: str, given: Range) -> Key:
    if given.choices is not None:
        return Key(name, choices=tuple(given.choices))
    return Key(name, given.low, given.high)


def _searched(
    search: Search, trial: Trial, runs: Mapping[str, ComparedRun], names: Mapping[str, str]
) -> SearchedRun:
    folder = Path(trial.run).name if trial.run else ""
    coordinates = search.space.coordinates(trial.values)
    searched = SearchedRun(
        number=trial.number,
        generation=trial.generation,
        values={names[axis]: value for axis, value in coordinates.items()},
        state=trial.state,
        run=folder,
        reason=trial.reason or "",
    )
    outcome, run = trial.outcome, runs.get(folder)
    if outcome is None:
        return searched
    readings = []
    for each in search.objectives:
        value = each.term.of(run) if run else None
        readings.append(Reading(outcome[each.term.text], value.ends if value else None))
    missed = {text: excess for text, excess in search.excesses(outcome).items() if excess > 0}
    return replace(searched, readings=tuple(readings), missed=missed)


def _reference(
    search: Search, runs: Sequence[SearchedRun], goals: Sequence[Goal]
) -> tuple[float, ...]:
    """The given point, or one beyond the worst of the first generation that has results."""
    if search.settings.reference is not None:
        return tuple(search.settings.reference)
    measured = [run for run in runs if run.readings]
    first = [run.readings for run in measured if run.generation == measured[0].generation]
    reference = []
    for place, goal in enumerate(goals if first else ()):
        values = sorted((readings[place].value for readings in first), key=goal.loss)
        reference.append(values[-1] + BEYOND * (values[-1] - values[0]))
    return tuple(reference)


def _importance(
    search: Search, trials: Iterable[Trial], names: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    done = [(trial.values, trial.outcome) for trial in trials if trial.outcome is not None]
    coordinates = [search.space.coordinates(values) for values, _ in done]
    found: dict[str, dict[str, float]] = {}
    for each in search.objectives:
        losses = [each.loss(outcome[each.term.text]) for _, outcome in done]
        of_axes = importance(search.space.axes(), coordinates, losses)
        found[each.term.text] = {names[axis]: share for axis, share in of_axes.items()}
    return found
