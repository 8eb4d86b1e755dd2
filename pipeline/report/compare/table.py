"""Every run in a row: the same values for terminal, page and CSV."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from pipeline.measure.record import PARTS, Part
from pipeline.report.compare.groups import Group, differing_keys, groups
from pipeline.report.compare.published import (
    DENSE,
    Published,
    PublishedPoint,
    accuracy_as_published,
    nearest,
    ppl_as_published,
)
from pipeline.report.compare.quantities import (
    ACCURACY,
    CACHE,
    DECODE,
    DECODE_MS,
    PEAK,
    PERPLEXITY,
    PREFILL,
    PREFILL_MS,
    Quantity,
    percent_of_dense,
    value_text,
)
from pipeline.report.compare.records import ComparedRun, Measured, Value, main_protocol
from pipeline.report.data import mean_accuracy
from pipeline.report.dense_and_pruned import BYTES_PER_MB, accuracy_text
from pipeline.report.wording import NOTHING, number, signed, span

SHOWN: tuple[tuple[str, Quantity, int], ...] = (
    ("Perplexity", PERPLEXITY, 2),
    ("Prefill (ms)", PREFILL_MS, 2),
    ("Decode (ms)", DECODE_MS, 2),
    ("Peak (MB)", PEAK, 1),
    ("KV (B/token)", CACHE, 0),
)
SPEEDS = {PREFILL_MS.title: PREFILL, DECODE_MS.title: DECODE}
NEWLINE = "\n"
FOLDED = ("Setting", "Device", "State")
"""Columns of text, which goes on below where a terminal is too narrow."""
SETTING_WIDTH = 20
"""Characters that such a text has at least, however wide the numbers are."""
BORDER = 3
"""Characters between two columns."""
TIME_UNITS: dict[Part, str] = {"prefill": "ms", "decode": "ms_per_token"}


@dataclass(frozen=True, slots=True)
class CellText:
    """A cell of the table."""

    text: str
    sort: float | str
    """What the column is sorted by; empty where there is no value, which goes last."""
    detail: str = ""
    """Small print below."""
    group: int | None = None
    """The group whose colour goes before the text."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One run or the dense model."""

    cells: tuple[CellText, ...]
    kind: str
    """dense, done or unfinished."""


def columns(runs: Sequence[ComparedRun]) -> list[str]:
    """Names of the cells of ``rows``."""
    texts = [f"Perplexity: {protocol}" for protocol in _other_texts(runs)]
    perplexity, *others = [name for name, *_ in SHOWN]
    measures = [perplexity, *texts, *others]
    quality = ["Accuracy", *_task_names(runs), "Points"]
    return ["Setting", "Removed", *quality, *measures, "Device", "State"]


def captions(runs: Sequence[ComparedRun]) -> list[str]:
    """What accuracy and perplexity were measured on; a cell says where it is something else."""
    shown = [(quantity.title, _protocol(quantity, runs)) for quantity in (ACCURACY, PERPLEXITY)]
    return [f"{title}: {protocol}." for title, protocol in shown if protocol]


def _protocol(quantity: Quantity, runs: Sequence[ComparedRun]) -> str | None:
    """How most of the values of a quantity were measured; None without any."""
    values = [value for run in runs if run.is_done and (value := quantity.of(run, True))]
    return main_protocol(runs, (value.protocol for value in values))


def _other_texts(runs: Sequence[ComparedRun]) -> list[str]:
    """How perplexities were measured that have columns of their own."""
    found = dict.fromkeys(p for run in runs if run.is_done for p in run.pruned.texts)
    return [protocol for protocol in found if protocol != _protocol(PERPLEXITY, runs)]


def _task_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Tasks of which most accuracies are the mean; none where it is one task alone."""
    protocol = _protocol(ACCURACY, runs)
    measured = (run.pruned.tasks[protocol] for run in runs if protocol in run.pruned.tasks)
    tasks = [task.task for task in next(measured, ())]
    return tasks if len(tasks) > 1 else []


@dataclass(frozen=True, slots=True)
class _Shown:
    """How the values of a table were measured."""

    tasks: tuple[str, ...]
    """Each has a column of its own."""

    other_texts: tuple[str, ...]
    """Each has a column of its own."""
    accuracy: str | None
    """Most of the accuracies."""
    perplexity: str | None


def rows(runs: Sequence[ComparedRun]) -> list[TableRow]:
    """The dense models, then every run, group by group."""
    shown = _Shown(
        tuple(_task_names(runs)),
        tuple(_other_texts(runs)),
        _protocol(ACCURACY, runs),
        _protocol(PERPLEXITY, runs),
    )
    table = [*_dense_rows(runs, shown)]
    for place, group in enumerate(groups(runs)):
        table += [_run_row(place, group, run, shown) for run in group.runs]
    return table


def _dense_rows(runs: Sequence[ComparedRun], shown: _Shown) -> Iterator[TableRow]:
    """Each dense model once for every way in which it was measured, unless another says as much."""
    found: dict[tuple[CellText, ...], None] = {}
    for run in runs:
        cells = (
            CellText(f"dense {run.model_name}", f"  dense {run.model_name}"),
            CellText(_with_origin("0 %", run, pruned=False), 0.0),
            *_quality(run, shown, pruned=False),
            *_measures(run, shown, pruned=False),
            CellText(run.dense.device or NOTHING, run.dense.device or ""),
            CellText("dense", "dense"),
        )
        if run.is_done and (run.dense.probe or run.dense.evaluations):
            found[cells] = None
    for cells in found:
        if not any(_says_as_much(other, cells) for other in found if other != cells):
            yield TableRow(cells, "dense")


def _says_as_much(other: Sequence[CellText], cells: Sequence[CellText]) -> bool:
    """Whether every value of ``cells`` is in ``other``, too."""
    pairs = zip(other, cells, strict=True)
    return all(cell == theirs or cell.sort == "" for theirs, cell in pairs)


def _run_row(place: int, group: Group, run: ComparedRun, shown: _Shown) -> TableRow:
    removed = run.removed_percent
    target = f"target {run.target_percent:g} %" if run.target_percent else ""
    so_far = "" if run.is_done else " so far"
    state = CellText(run.state, run.state, run.error or "" if not run.is_done else "")
    return TableRow(
        (
            CellText(group.label, group.label, run.name, place),
            CellText(
                NOTHING
                if removed is None
                else _with_origin(f"{removed:.1f} %{so_far}", run, pruned=True),
                "" if removed is None else removed,
                target,
            ),
            *_quality(run, shown, pruned=True),
            *_measures(run, shown, pruned=True),
            CellText(run.device or NOTHING, run.device or ""),
            state,
        ),
        "done" if run.is_done else "unfinished",
    )


def _with_origin(removed: str, run: ComparedRun, *, pruned: bool) -> str:
    """With what is gone of the first model, where the dense one was pruned before."""
    of_origin = run.of_origin(pruned=pruned)
    return f"{removed} ({of_origin})" if of_origin else removed


def _quality(run: ComparedRun, shown: _Shown, *, pruned: bool) -> Iterator[CellText]:
    accuracy, dense = ACCURACY.of(run, pruned), ACCURACY.of(run, False)
    text = value_text(accuracy, "%")
    yield CellText(text, accuracy.value if accuracy else "", _other(accuracy, shown.accuracy))
    by_name = {task.task: task for task in run.tasks(pruned)}
    for name in shown.tasks:
        task = by_name.get(name)
        yield CellText(
            accuracy_text(mean_accuracy([task] if task else [])), task.accuracy if task else ""
        )
    if pruned and accuracy and dense and accuracy.protocol == dense.protocol:
        points = accuracy.value - dense.value
        yield CellText(signed(points), points)
    else:
        yield CellText("" if not pruned else NOTHING, "")


def _other(value: Value | None, shown: str | None) -> str:
    """How a value was measured, where most others were measured otherwise."""
    return value.protocol if value and value.protocol != shown else ""


def _measures(run: ComparedRun, shown: _Shown, *, pruned: bool) -> Iterator[CellText]:
    for _, quantity, digits in SHOWN:
        value = quantity.of(run, pruned)
        relative = SPEEDS.get(quantity.title, quantity)
        percent = percent_of_dense(relative, run) if pruned and relative.has_percent else None
        prefix = "speed " if relative is not quantity else ""
        detail = f"{prefix}{_percent(percent)}" if percent else ""
        if quantity is PERPLEXITY:
            detail = _other(value, shown.perplexity)
        text = number(value.value if value else None, digits)
        yield CellText(text, value.value if value else "", detail)
        if quantity is PERPLEXITY:
            yield from _other_perplexities(run, shown, pruned)


def _percent(percent: Value) -> str:
    if percent.interval is None:
        return f"{percent.value:.0f} %"
    return f"{span(*percent.interval.ends, digits=0)} %"


def _other_perplexities(run: ComparedRun, shown: _Shown, pruned: bool) -> Iterator[CellText]:
    for protocol in shown.other_texts:
        value = run.perplexity(pruned, protocol)
        yield CellText(number(value.value if value else None), value.value if value else "")


def runs_tables(name: str, runs: Sequence[ComparedRun], width: int) -> list[Table]:
    """Every run, for a terminal of so many characters: in several tables where one is too wide."""
    shown, names = rows(runs), columns(runs)
    only_on_page = set(_task_names(runs))  # a terminal is too narrow for tasks
    cells = {
        place: [_heading(name), *(_terminal_text(row.cells[place], name) for row in shown)]
        for place, name in enumerate(names)
        if name not in only_on_page and _says_something(shown, place, name)
    }
    styles = [{"dense": "bold", "unfinished": "yellow"}.get(row.kind, "") for row in shown]
    tables = []
    for places in _side_by_side({place: _least_width(cells[place]) for place in cells}, width):
        table = Table(title_justify="left", caption_justify="left")
        for place in places:
            is_text = names[place] in FOLDED
            table.add_column(
                cells[place][0],
                justify="left" if is_text else "right",
                no_wrap=not is_text,
                overflow="fold",
                min_width=_least_width(cells[place]),
            )
        for line, style in enumerate(styles, 1):
            table.add_row(*(cells[place][line] for place in places), style=style)
        tables.append(table)
    tables[0].title = Text(name)
    tables[-1].caption = Text("\n".join(captions(runs)))
    return tables


def _side_by_side(widths: Mapping[int, int], width: int) -> list[list[int]]:
    """Columns, by their place, of each table: all begin with what a row is, and what it removed."""
    first, rest = list(widths)[:2], list(widths)[2:]
    tables = [list(first)]
    for place in rest:
        taken = sum(widths[each] + BORDER for each in [*tables[-1], place]) + 1
        if taken > width and tables[-1] != first:
            tables.append(list(first))
        tables[-1].append(place)
    return tables


def _least_width(cells: Sequence[Text]) -> int:
    """Characters that a column needs: its longest line, and less where it can be folded."""
    longest = max(line.cell_len for cell in cells for line in cell.split())
    return min(longest, SETTING_WIDTH) if cells[0].plain in FOLDED else longest


def _heading(column: str) -> Text:
    return Text(column.replace(": ", ":\n").replace(", ", ",\n"))


def _says_something(table: Sequence[TableRow], place: int, column: str) -> bool:
    """Whether a column says anything; one device or state for all is not worth a column."""
    texts = {row.cells[place].text for row in table}
    if column == "Device":
        return len(texts - {NOTHING}) > 1
    return bool(texts - ({"dense", "done"} if column == "State" else {NOTHING, ""}))


def _terminal_text(cell: CellText, column: str) -> Text:
    if column == "State" and cell.detail:
        return Text(f"{cell.text}: {cell.detail}")
    if column.startswith(("Accuracy", "Perplexity", "Prefill", "Decode")) and cell.detail:
        if cell.detail.startswith("speed "):
            return Text(f"{cell.text} ({cell.detail.removeprefix('speed ')})")
        return Text(f"{cell.text}\n({cell.detail.replace(', ', f',{NEWLINE}')})")
    if column == "Removed":
        return Text(cell.text.replace(" (", "\n("))
    return Text(cell.text)


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published result and ours beside it."""

    cells: tuple[str, ...]


PUBLISHED_COLUMNS = (
    "Model", "Method", "Removed", "WikiText-2 perplexity", "Accuracy",
    "Ours: removed", "perplexity", "accuracy", "Published accuracy by task", "Source",
)  # fmt: skip


def published_rows(runs: Sequence[ComparedRun], published: Published) -> list[PublishedRow]:
    """Every published point, with ours beside it where the same thing was measured."""
    return [
        PublishedRow(_published_cells(point, runs, published.sources.index(point.source) + 1))
        for point in published.points
    ]


def protocols_differ(runs: Sequence[ComparedRun]) -> bool:
    """Whether a finished run measured something else than the paper."""
    return any(
        run.is_done and not (ppl_as_published(run) and accuracy_as_published(run)) for run in runs
    )


def _published_cells(
    point: PublishedPoint, runs: Sequence[ComparedRun], source: int
) -> tuple[str, ...]:
    ours = nearest(point, runs)
    pruned = point.method != DENSE
    removed = NOTHING
    ppl = accuracy = None
    if ours:
        removed = f"{ours.removed_percent or 0:.1f} %" if pruned else "0 %"
        if point.source.has_our_perplexity and point.ppl is not None:
            ppl = ppl_as_published(ours, pruned)
        if point.source.has_our_accuracy and point.accuracy_percent is not None:
            accuracy = accuracy_as_published(ours, pruned)
    published = point.accuracy_percent
    return (
        point.model,
        point.title,
        f"{point.removed_percent:.1f} %",
        number(point.ppl),
        NOTHING if published is None else f"{published:.1f} %",
        removed,
        value_text(ppl),
        value_text(accuracy, "%"),
        ", ".join(f"{task} {value:.1f}" for task, value in point.by_task_percent.items()),
        f"{source}",
    )


def to_csv(runs: Sequence[ComparedRun]) -> str:
    """Plain numbers, one row per run; units are in the names of the columns."""
    keys = differing_keys(runs)
    records = [_csv_record(group, run, keys) for group in groups(runs) for run in group.runs]
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _csv_record(group: Group, run: ComparedRun, keys: Sequence[str]) -> dict[str, object]:
    record: dict[str, object] = {
        "run": run.name,
        "state": run.state,
        "error": run.error,
        "setting": group.label,
        "model": run.model_path,
        "device": run.device,
        "target_percent": run.target_percent,
        "removed_percent": run.removed_percent,
        "params": run.params,
        "dense_params": run.total_params,
        **_csv_active(run),
        **_csv_origin(run),
    }
    for prefix, pruned in (("", True), ("dense_", False)):
        record |= {f"{prefix}{name}": value for name, value in _csv_values(run, pruned)}
    for name, quantity in (
        ("prefill_speed", PREFILL), ("decode_speed", DECODE), ("peak_memory", PEAK),
        ("kv_cache", CACHE),
    ):  # fmt: skip
        percent = percent_of_dense(quantity, run)
        record[f"{name}_percent_of_dense"] = percent.value if percent else None
        if percent and percent.interval:
            record[f"{name}_percent_of_dense_low"] = percent.interval.low
            record[f"{name}_percent_of_dense_high"] = percent.interval.high
    record |= {f"accuracy_{t.task}_percent": t.accuracy * 100 for t in run.tasks()}
    for protocol in run.pruned.texts:
        for prefix, pruned in (("", True), ("dense_", False)):
            value = run.perplexity(pruned, protocol)
            record[f"{prefix}perplexity ({protocol})"] = value and value.value
    record |= {key: _plain(run.settings.get(key)) for key in keys}
    record["folder"] = run.folder
    return record


def _csv_active(run: ComparedRun) -> dict[str, object]:
    """Parameters that one token passes, of a mixture of experts."""
    pruned, dense = (run.active_params(pruned=pruned) for pruned in (True, False))
    return {} if pruned is None else {"active_params": pruned, "dense_active_params": dense}


def _csv_origin(run: ComparedRun) -> dict[str, object]:
    """What the dense model was pruned from."""
    if not run.origin:
        return {}
    removed = None if run.params is None else run.origin.removed_percent(run.params)
    return {"pruned_from": run.origin.name, "removed_percent_of_that": removed}


def _csv_values(run: ComparedRun, pruned: bool) -> Iterator[tuple[str, object]]:
    side: Measured = run.pruned if pruned else run.dense
    accuracy, ppl, latency = run.accuracy(pruned), run.perplexity(pruned), side.latency
    yield "accuracy_percent", accuracy and accuracy.value
    yield "accuracy_stderr_percent", accuracy and accuracy.stderr
    yield "accuracy_of", accuracy and accuracy.protocol
    yield "perplexity", ppl and ppl.value
    yield "perplexity_of", ppl and ppl.protocol
    for part in PARTS:
        timing = latency and latency.timing(part)
        unit = TIME_UNITS[part]
        yield f"{part}_{unit}", timing and timing.median_ms
        yield f"{part}_{unit}_low", timing and timing.interval.low
        yield f"{part}_{unit}_high", timing and timing.interval.high
        yield f"{part}_tokens_per_s", latency and latency.tokens_per_s(part)
    yield "latency_of", latency and latency.protocol
    yield "latency_taken", latency and latency.taken
    yield "latency_load", latency and latency.load
    yield "host", side.probe and side.probe.made_by.get("host")
    for name, quantity in (("peak_memory_mb", PEAK), ("kv_cache_bytes_per_token", CACHE)):
        value = quantity.of(run, pruned)
        yield name, value and value.value
    yield "weights_mb", side.memory and side.memory.weights / BYTES_PER_MB


def _plain(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value
