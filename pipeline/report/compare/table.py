"""Every run in a row: the same values for terminal, page and CSV."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from pipeline.report.compare.groups import Group, differing_keys, groups
from pipeline.report.compare.published import (
    Published,
    PublishedPoint,
    is_model,
    measures_accuracy_alike,
    measures_ppl_alike,
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
from pipeline.report.compare.records import ComparedRun, Measured
from pipeline.report.dense_and_pruned import BYTES_PER_MB
from pipeline.report.wording import NOTHING, number, signed

SHOWN: tuple[tuple[str, Quantity, int], ...] = (
    ("Perplexity", PERPLEXITY, 2),
    ("Prefill (ms)", PREFILL_MS, 2),
    ("Decode (ms)", DECODE_MS, 2),
    ("Peak (MB)", PEAK, 1),
    ("KV (B/token)", CACHE, 0),
)
SPEEDS = {PREFILL_MS.title: PREFILL, DECODE_MS.title: DECODE}
COLUMNS = (
    "Setting",
    "Removed",
    "Accuracy",
    "Points",
    *(name for name, *_ in SHOWN),
    "Device",
    "State",
)
NEAR_PERCENT = 1.0
"""A published ratio and ours within so many points are set side by side."""


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


def rows(runs: Sequence[ComparedRun]) -> list[TableRow]:
    """The dense models, then every run, group by group."""
    table = [*_dense_rows(runs)]
    for place, group in enumerate(groups(runs)):
        table += [_run_row(place, group, run) for run in group.runs]
    return table


def _dense_rows(runs: Sequence[ComparedRun]) -> Iterator[TableRow]:
    """Each dense model once for every way in which it was measured."""
    seen = set()
    for run in runs:
        cells = (
            CellText(f"dense {run.model_name}", f"  dense {run.model_name}"),
            CellText("0 %", 0.0),
            *_quality(run, pruned=False),
            *_measures(run, pruned=False),
            CellText(run.dense.device or NOTHING, run.dense.device or ""),
            CellText("dense", "dense"),
        )
        if run.is_done and cells not in seen and (run.dense.probe or run.dense.evaluation):
            seen.add(cells)
            yield TableRow(cells, "dense")


def _run_row(place: int, group: Group, run: ComparedRun) -> TableRow:
    removed = run.removed_percent
    target = f"target {run.target_percent:g} %" if run.target_percent else ""
    so_far = "" if run.is_done else " so far"
    state = CellText(run.state, run.state, run.error or "" if not run.is_done else "")
    return TableRow(
        (
            CellText(group.label, group.label, run.name, place),
            CellText(
                NOTHING if removed is None else f"{removed:.1f} %{so_far}",
                "" if removed is None else removed,
                target,
            ),
            *_quality(run, pruned=True),
            *_measures(run, pruned=True),
            CellText(run.device or NOTHING, run.device or ""),
            state,
        ),
        "done" if run.is_done else "unfinished",
    )


def _quality(run: ComparedRun, *, pruned: bool) -> Iterator[CellText]:
    accuracy, dense = ACCURACY.of(run, pruned), ACCURACY.of(run, False)
    yield CellText(value_text(accuracy, "%"), accuracy.value if accuracy else "")
    if pruned and accuracy and dense and accuracy.protocol == dense.protocol:
        points = accuracy.value - dense.value
        yield CellText(signed(points), points)
    else:
        yield CellText("" if not pruned else NOTHING, "")


def _measures(run: ComparedRun, *, pruned: bool) -> Iterator[CellText]:
    for _, quantity, digits in SHOWN:
        value = quantity.of(run, pruned)
        relative = SPEEDS.get(quantity.title, quantity)
        percent = percent_of_dense(relative, run) if pruned and relative.has_percent else None
        prefix = "speed " if relative is not quantity else ""
        detail = f"{prefix}{percent.value:.0f} %" if percent else ""
        shown = number(value.value if value else None, digits)
        yield CellText(shown, value.value if value else "", detail)


def runs_table(name: str, runs: Sequence[ComparedRun]) -> Table:
    """Every run, for a terminal."""
    table = Table(title=Text(name), title_justify="left")
    shown = rows(runs)
    columns = [place for place in range(len(COLUMNS)) if _says_something(shown, place)]
    for place in columns:
        is_text = COLUMNS[place] in ("Setting", "Device", "State")
        table.add_column(
            COLUMNS[place],
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
        )
    for row in shown:
        style = {"dense": "bold", "unfinished": "yellow"}.get(row.kind, "")
        table.add_row(*(_terminal_text(row, place) for place in columns), style=style)
    return table


def _says_something(table: Sequence[TableRow], place: int) -> bool:
    """Whether a column says anything; one device for all is not worth a column."""
    texts = {row.cells[place].text for row in table}
    if COLUMNS[place] == "Device":
        return len(texts - {NOTHING}) > 1
    return COLUMNS[place] == "State" or bool(texts - {NOTHING, ""})


def _terminal_text(row: TableRow, place: int) -> Text:
    cell = row.cells[place]
    if COLUMNS[place] == "State" and cell.detail:
        return Text(f"{cell.text}: {cell.detail}")
    if COLUMNS[place].startswith(("Prefill", "Decode")) and cell.detail:
        return Text(f"{cell.text} ({cell.detail.removeprefix('speed ')})")
    return Text(cell.text)


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published result and ours beside it."""

    cells: tuple[str, ...]


PUBLISHED_COLUMNS = (
    "Model", "Method", "Removed", "WikiText-2 perplexity", "Accuracy",
    "Ours: removed", "perplexity", "accuracy",
)  # fmt: skip


def published_rows(runs: Sequence[ComparedRun], published: Published) -> list[PublishedRow]:
    """Every published point, with ours beside it where the same thing was measured."""
    return [PublishedRow(_published_cells(point, runs)) for point in published.points]


def protocols_differ(runs: Sequence[ComparedRun]) -> bool:
    """Whether a finished run measured something else than the paper."""
    return any(
        run.is_done and not (measures_ppl_alike(run) and measures_accuracy_alike(run))
        for run in runs
    )


def _published_cells(point: PublishedPoint, runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    shares = ":".join(map(str, point.distribution or ()))
    ours = _nearest(point, runs)
    pruned = point.method != "dense"
    removed = NOTHING
    ppl = accuracy = None
    if ours:
        removed = f"{ours.removed_percent or 0:.1f} %" if pruned else "0 %"
        ppl = ours.perplexity(pruned) if measures_ppl_alike(ours) else None
        accuracy = ours.accuracy(pruned) if measures_accuracy_alike(ours) else None
    return (
        point.model,
        f"{point.method} {shares}".strip(),
        f"{point.removed_percent:.1f} %",
        number(point.wikitext2_ppl),
        f"{point.average_accuracy_percent:.1f} %",
        removed,
        value_text(ppl),
        value_text(accuracy, "%"),
    )


def _nearest(point: PublishedPoint, runs: Sequence[ComparedRun]) -> ComparedRun | None:
    """Our run of the same model, at the same ratio and with the same distribution."""
    fitting = [
        run for run in runs if run.is_done and is_model(run.model_path, point) and _fits(point, run)
    ]
    return min(fitting, key=lambda run: _distance(point, run), default=None)


def _fits(point: PublishedPoint, run: ComparedRun) -> bool:
    if point.method == "dense":
        return True
    shares = run.settings.get("prune.distribution") or []
    theirs = list(point.distribution or ()) if point.method == "MultiPruner" else [100, 0, 0]
    return _normal(shares) == _normal(theirs) and _distance(point, run) <= NEAR_PERCENT


def _normal(shares: Sequence[float]) -> list[float]:
    whole = sum(shares) or 1
    return [round(share / whole, 4) for share in shares]


def _distance(point: PublishedPoint, run: ComparedRun) -> float:
    return abs((run.removed_percent or 0.0) - point.removed_percent)


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
    }
    for prefix, pruned in (("", True), ("dense_", False)):
        record |= {f"{prefix}{name}": value for name, value in _csv_values(run, pruned)}
    for name, quantity in (
        ("prefill_speed", PREFILL), ("decode_speed", DECODE), ("peak_memory", PEAK),
        ("kv_cache", CACHE),
    ):  # fmt: skip
        percent = percent_of_dense(quantity, run)
        record[f"{name}_percent_of_dense"] = percent.value if percent else None
    record |= {f"accuracy_{t.task}_percent": t.accuracy * 100 for t in run.tasks()}
    record |= {key: _plain(run.settings.get(key)) for key in keys}
    record["folder"] = run.folder
    return record


def _csv_values(run: ComparedRun, pruned: bool) -> Iterator[tuple[str, object]]:
    side: Measured = run.pruned if pruned else run.dense
    accuracy, ppl, latency = run.accuracy(pruned), run.perplexity(pruned), side.latency
    yield "accuracy_percent", accuracy and accuracy.value
    yield "accuracy_stderr_percent", accuracy and accuracy.stderr
    yield "accuracy_of", accuracy and accuracy.protocol
    yield "perplexity", ppl and ppl.value
    yield "perplexity_of", ppl and ppl.protocol
    yield "prefill_ms", latency and latency.prefill.median_ms
    yield "decode_ms_per_token", latency and latency.decode.median_ms
    yield "prefill_tokens_per_s", latency and latency.prefill_tokens_per_s
    yield "decode_tokens_per_s", latency and latency.decode_tokens_per_s
    for name, quantity in (("peak_memory_mb", PEAK), ("kv_cache_bytes_per_token", CACHE)):
        value = quantity.of(run, pruned)
        yield name, value and value.value
    yield "weights_mb", side.memory and side.memory.weights / BYTES_PER_MB


def _plain(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict | bool) else value
