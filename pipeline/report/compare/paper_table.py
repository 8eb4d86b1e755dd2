"""Finished runs as a table for a paper: methods in rows, block by block of one ratio."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from statistics import mean, stdev
from typing import Literal

from pipeline.measure.record import TaskScore, TextScore
from pipeline.report.compare.groups import Group, groups, seedless
from pipeline.report.compare.quantities import (
    ACCURACY,
    DECODE,
    PREFILL,
    Quantity,
    percent_of_dense,
    value_text,
)
from pipeline.report.compare.records import ComparedRun, Value, main_protocol
from pipeline.report.data import mean_accuracy
from pipeline.report.wording import NOTHING, number, short_count, span

TASK_TITLES = {
    "arc_challenge": "ARC-c", "arc_easy": "ARC-e", "boolq": "BoolQ", "hellaswag": "HellaSwag",
    "lambada_openai": "LAMBADA", "openbookqa": "OBQA", "piqa": "PIQA", "winogrande": "WinoGrande",
}  # fmt: skip
"""As papers write them; a task of one's own has its name."""
SPEED_UPS = (("Prefill speed-up", PREFILL), ("Decode speed-up", DECODE))
LOWER, HIGHER = "↓", "↑"
"""Which direction is better."""
SEEDS = "Rows of several seeds: mean ± standard deviation over them."
RECOVERED = "†"
OF_RECOVERED = f"{RECOVERED} Perplexity and accuracy after recovery, of the model that it gave."
Best = Literal["lowest", "highest"]


@dataclass(frozen=True, slots=True)
class PaperCell:
    """A value, and whether it is the best of its block."""

    text: str
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class PaperTable:
    """Cells of every row, and what to know about them."""

    columns: tuple[str, ...]
    texts: int
    """So many of the first columns hold text, the others numbers."""
    blocks: tuple[tuple[tuple[PaperCell, ...], ...], ...]
    """Rows between two rules: a dense model, or runs of one model with one target."""
    notes: tuple[str, ...]
    """Sentences: how all was measured."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A quantity that was measured alike in all rows that have it."""

    title: str
    of: Callable[[ComparedRun, bool], Value | None]
    """Of the pruned model (true) or the dense one; None where it was not measured so."""
    text: Callable[[Value], str]
    best: Best
    note: str
    """How it was measured."""


@dataclass(frozen=True, slots=True)
class _Row:
    model: str
    label: str
    removed: str
    params: str
    values: tuple[Value | None, ...]


def paper_table(runs: Sequence[ComparedRun]) -> PaperTable:
    """Dense first, then every finished run by its target; best of a target and column is marked."""
    done = [run for run in runs if run.is_done]
    columns = [*_perplexities(done), *_accuracies(done), *_speed_ups(done)]
    models = list(dict.fromkeys(run.model_path for run in done))
    settings = _settings(runs)
    blocks = []
    for model in models:
        own = [run for run in done if run.model_path == model]
        blocks.append([_dense_row(own, columns)])
        blocks += _blocks(own, settings, columns)
    heads = ["Model"] if len(models) > 1 else []
    names = [*heads, "Method", "Removed (%)", "Parameters", *(each.title for each in columns)]
    notes = [each.note for each in columns]
    unfinished = len(runs) - len(done)
    return PaperTable(
        tuple(names),
        len(heads) + 1,
        tuple(tuple(_marked(block, columns, has_model=bool(heads))) for block in blocks),
        (
            *dict.fromkeys(filter(None, notes)),
            *([SEEDS] if any(len(each.runs) > 1 for each in settings) else []),
            *([OF_RECOVERED] if any(run.before_recovery for run in done) else []),
            "Best of each ratio in bold.",
            *([f"Left out, as not finished: {unfinished}."] if unfinished else []),
        ),
    )


def _blocks(
    own: Sequence[ComparedRun], settings: Sequence[Group], columns: Sequence[_Column]
) -> Iterator[list[_Row]]:
    """Runs of a model by their targets; those of a setting that differ only in seeds in one row."""
    places = {run.folder: place for place, each in enumerate(settings) for run in each.runs}
    ordered = sorted(own, key=lambda run: (_target(run), places[run.folder]))
    for _, of_target in groupby(ordered, key=_target):
        yield [
            _row(settings[place].label, list(members), columns)
            for place, members in groupby(of_target, key=lambda run: places[run.folder])
        ]


def _settings(runs: Sequence[ComparedRun]) -> list[Group]:
    """The runs of every row, labelled as among all runs."""
    over_seeds = seedless([run for run in runs if run.is_done])
    if all(len(each.runs) == 1 for each in over_seeds):
        return [Group(group.label, (run,)) for group in groups(runs) for run in group.runs]
    return [
        replace(each, label=f"{each.label}, {len(each.runs)} seeds") if each.runs[1:] else each
        for each in over_seeds
    ]


def _row(label: str, members: Sequence[ComparedRun], columns: Sequence[_Column]) -> _Row:
    """One run, or the means of several that differ only in seeds."""
    removed = [run.removed_percent for run in members if run.removed_percent is not None]
    params = [run.params for run in members if run.params is not None]
    mark = f" {RECOVERED}" if any(run.before_recovery for run in members) else ""
    return _Row(
        members[0].model_name,
        f"{label}{mark}",
        number(mean(removed) if removed else None, 1),
        _params(params, [run.active_params(pruned=True) for run in members]),
        tuple(_mean([column.of(run, True) for run in members]) for column in columns),
    )


def _mean(values: Sequence[Value | None]) -> Value | None:
    """The mean with the standard deviation of the values, where there are several."""
    known = [value for value in values if value]
    if len(values) < 2 or not known:  # noqa: PLR2004 - a run by itself is as it was measured
        return known[0] if known else None
    if len(known) < len(values):
        return None
    numbers = [value.value for value in known]
    return Value(mean(numbers), stdev(numbers), known[0].protocol)


def _params(totals: Sequence[int], active: Sequence[int | None]) -> str:
    """Means in total, and of a mixture of experts of those that one token passes."""
    if not totals:
        return NOTHING
    known = [each for each in active if each is not None]
    return short_count(mean(totals)) + (f", {short_count(mean(known))} active" if known else "")


def _target(run: ComparedRun) -> float:
    return run.target_percent or run.removed_percent or 0.0


def _dense_row(own: Sequence[ComparedRun], columns: Sequence[_Column]) -> _Row:
    """What any of a model's runs measured of the dense one."""
    known = next((run for run in own if run.total_params), None)
    total = [known.total_params] if known and known.total_params else []
    active = [known.active_params(pruned=False)] if known else []
    return _Row(
        own[0].model_name,
        "Dense",
        number(0.0, 1),
        _params(total, active),
        tuple(
            next((value for run in own if (value := column.of(run, False))), None)
            for column in columns
        ),
    )


def _marked(
    block: Sequence[_Row], columns: Sequence[_Column], *, has_model: bool
) -> Iterator[tuple[PaperCell, ...]]:
    best = [
        _best([row.values[place] for row in block], column) for place, column in enumerate(columns)
    ]
    for row in block:
        texts = [
            column.text(value) if value else NOTHING
            for column, value in zip(columns, row.values, strict=True)
        ]
        yield (
            *([PaperCell(row.model)] if has_model else []),
            *map(PaperCell, (row.label, row.removed, row.params)),
            *(
                PaperCell(text, value is not None and value.value == most)
                for text, value, most in zip(texts, row.values, best, strict=True)
            ),
        )


def _best(values: Sequence[Value | None], column: _Column) -> float | None:
    """The best value of a block; None where there are not two to compare."""
    known = [value.value for value in values if value]
    if len(known) < 2:  # noqa: PLR2004 - one alone is not the best of anything
        return None
    return min(known) if column.best == "lowest" else max(known)


def _perplexities(done: Sequence[ComparedRun]) -> Iterator[_Column]:
    """One for each text and way of cutting it."""
    scores: dict[str, TextScore] = {}
    for run in done:
        scores |= run.pruned.texts
    for protocol, score in scores.items():
        is_alone = sum(each.text == score.text for each in scores.values()) == 1
        title = score.text if is_alone else protocol
        yield _Column(
            f"{title} {LOWER}",
            partial(_perplexity, protocol),
            _perplexity_text,
            "lowest",
            f"Perplexity: {protocol}.",
        )


def _perplexity(protocol: str, run: ComparedRun, pruned: bool) -> Value | None:
    return run.perplexity(pruned, protocol)


def _perplexity_text(value: Value) -> str:
    deviation = "" if value.stderr is None else f" ± {number(value.stderr)}"
    return f"{number(value.value)}{deviation}"


def _accuracies(done: Sequence[ComparedRun]) -> Iterator[_Column]:
    """One for each task, then their mean, of the tasks and items that most runs have."""
    known = [value for run in done if (value := ACCURACY.of(run, True))]
    protocol = main_protocol(done, (value.protocol for value in known))
    if protocol is None:
        return
    note = f"Accuracy in percent, ± standard error: {protocol}."
    tasks = next(run.pruned.tasks[protocol] for run in done if protocol in run.pruned.tasks)
    for place, task in enumerate(tasks):
        title = TASK_TITLES.get(task.task, task.task)
        of = partial(_task_accuracy, protocol, place)
        yield _Column(f"{title} {HIGHER}", of, value_text, "highest", note)
    if len(tasks) > 1:
        of = partial(_mean_accuracy, protocol)
        yield _Column(f"Mean {HIGHER}", of, value_text, "highest", note)


def _task_accuracy(protocol: str, place: int, run: ComparedRun, pruned: bool) -> Value | None:
    tasks = _tasks(protocol, run, pruned)
    return _percent(tasks[place : place + 1], protocol)


def _mean_accuracy(protocol: str, run: ComparedRun, pruned: bool) -> Value | None:
    return _percent(_tasks(protocol, run, pruned), protocol)


def _tasks(protocol: str, run: ComparedRun, pruned: bool) -> tuple[TaskScore, ...]:
    return (run.pruned if pruned else run.dense).tasks.get(protocol, ())


def _percent(tasks: Sequence[TaskScore], protocol: str) -> Value | None:
    mean = mean_accuracy(tasks)
    if mean is None:
        return None
    return Value(mean[0] * 100, None if mean[1] is None else mean[1] * 100, protocol)


def _speed_ups(done: Sequence[ComparedRun]) -> Iterator[_Column]:
    """Against the dense model, as most runs were timed."""
    for title, quantity in SPEED_UPS:
        known = [value for run in done if (value := percent_of_dense(quantity, run))]
        protocol = main_protocol(done, (value.protocol for value in known))
        if protocol is not None:
            note = f"Speed-up with its interval of 95 %: {protocol}."
            of = partial(_speed_up, quantity, protocol)
            yield _Column(f"{title} {HIGHER}", of, _speed_up_text, "highest", note)


def _speed_up(quantity: Quantity, protocol: str, run: ComparedRun, pruned: bool) -> Value | None:
    """As a factor; 1 of the dense model."""
    percent = percent_of_dense(quantity, run)
    if percent is None or percent.protocol != protocol:
        return None
    if not pruned:
        return Value(1.0, None, protocol)
    interval = percent.interval and percent.interval.times(0.01)
    return Value(percent.value / 100, None, protocol, interval)


def _speed_up_text(value: Value) -> str:
    if value.interval is None:
        return _perplexity_text(value)
    return f"{number(value.value)} ({span(*value.interval.ends)})"
