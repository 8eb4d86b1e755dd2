"""The run as one HTML file that needs nothing else: no network, no server, no other file."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.pruning.shape import BLOCK_KINDS, BlockKind
from pipeline.report import colours
from pipeline.report.comparison import accuracy_text, comparison
from pipeline.report.data import ReportStep, RunReport, finite, mean_accuracy
from pipeline.report.headline import headlines
from pipeline.report.html import render, resource, unless_secret
from pipeline.report.series import (
    bands,
    cells,
    charts,
    is_taken,
    outlier_limit,
    sensitivity_base,
    sensitivity_note,
)
from pipeline.report.wording import DIMENSION_NAMES, NOTHING, number, removal
from pipeline.settings.flat import flat


def write_page(report: RunReport, path: Path) -> None:
    """Write the page into ``path``."""
    files.replace(path, render_page(report))


def render_page(report: RunReport) -> str:
    """The page's HTML. Everything that comes from the run is escaped."""
    return render(
        "page.html.j2",
        _resource("page.css"),
        _resource("drawing.js") + _resource("page.js"),
        report=report,
        headlines=headlines(report),
        rows=comparison(report),
        columns=_step_columns(report),
        step_rows=[_step_row(report, step) for step in report.steps],
        settings=list(_settings(report)),
        facts=list(_facts(report)),
        data=_drawn(report),
        dimension_names=DIMENSION_NAMES,
    )


def _resource(name: str) -> str:
    return resource("pipeline.report", name)


def _drawn(report: RunReport) -> dict[str, Any]:
    """What page.js draws."""
    return {
        "layers": len(report.shape.layers),
        "block_params": {kind: report.shape.params(kind) for kind in BLOCK_KINDS},
        "cells": [asdict(cell) for cell in cells(report)],
        "steps": [
            {
                "step": step.step,
                "unit": step.unit,
                "layer": step.layer,
                "width_after": step.width_after,
                "ratio_percent": step.ratio_percent,
                "text": _removal(report, step),
            }
            for step in report.steps
        ],
        "bands": [asdict(band) for band in bands(report)],
        "charts": [asdict(chart) for chart in charts(report)],
        "sensitivity": _sensitivity(report),
        "dimension_names": DIMENSION_NAMES,
        "colours": {
            "dimensions": colours.DIMENSIONS,
            "tints": colours.TINTS,
            "marks": colours.MARKS,
            "units": colours.UNITS,
        },
    }


def _sensitivity(report: RunReport) -> list[dict[str, Any]]:
    drawn = []
    for dimension, name in DIMENSION_NAMES.items():
        entry = report.sensitivity.get(dimension)
        if entry is None or not entry.losses:
            continue
        limit = outlier_limit(entry)
        losses = [
            {
                "unit": loss.unit,
                "layer": loss.layer,
                "ppl": finite(loss.ppl),
                "text": number(loss.ppl, 3) if finite(loss.ppl) is not None else "no number",
                "taken": is_taken(report, loss),
            }
            for loss in entry.losses
        ]
        drawn.append(
            {
                "dimension": dimension,
                "title": name,
                "dense_ppl": finite(entry.dense_ppl),
                "base": sensitivity_base(entry),
                "limit": limit,
                "note": sensitivity_note(entry, limit),
                "losses": losses,
            }
        )
    return drawn


@dataclass(frozen=True, slots=True)
class Value:
    """A cell of the table of steps."""

    text: str
    sort: float | str
    """What the column is sorted by; empty where there is no value, which goes last."""
    swatch: str = ""
    """The dimension whose colour goes before the text."""


def _step_columns(report: RunReport) -> list[str]:
    columns = ["Step", "Dimension", "What went", "Calibration perplexity", "Removed", "Parameters"]
    if _has_records(report):
        columns += ["Held-out perplexity", "Accuracy", "Prefill (ms)", "Decode (ms)"]
    return columns


def _has_records(report: RunReport) -> bool:
    return any(step.record for step in report.steps)


def _step_row(report: RunReport, step: ReportStep) -> list[Value]:
    row = [
        Value(str(step.step), step.step),
        Value(
            DIMENSION_NAMES[step.dimension],
            list(DIMENSION_NAMES).index(step.dimension),
            step.dimension,
        ),
        Value(_removal(report, step), step.layer),
        _number(step.importance, 3),
        Value(f"{step.ratio_percent:.2f} %", step.ratio_percent),
        Value(f"{step.params:,}", step.params),
    ]
    return [*row, *_record_values(step)] if _has_records(report) else row


def _removal(report: RunReport, step: ReportStep) -> str:
    kind: BlockKind = "attn" if step.unit.startswith("attn") else "mlp"
    return removal(step, report.shape.widths(kind)[step.layer])


def _record_values(step: ReportStep) -> Iterator[Value]:
    record = step.record
    accuracy = mean_accuracy(record.tasks) if record else None
    latency = record.latency if record else None
    yield _number(record.ppl if record else None, 3)
    yield Value(accuracy_text(accuracy), accuracy[0] if accuracy else "")
    yield _number(latency.prefill.median_ms if latency else None, 2)
    yield _number(latency.decode.median_ms if latency else None, 2)


def _number(value: float | None, digits: int) -> Value:
    known = finite(value)
    return Value(NOTHING, "") if known is None else Value(number(known, digits), known)


def _settings(report: RunReport) -> Iterator[tuple[str, str]]:
    for key, value in flat(report.settings).items():
        yield key, unless_secret(key, NOTHING if value is None else str(value))


def _facts(report: RunReport) -> Iterator[tuple[str, str]]:
    """What to know of the run besides its settings."""
    for name, value in report.counts.items():
        yield name, number(value) if isinstance(value, float) else str(value)
    if (share := finite(report.probe_share)) is not None:
        yield "share of the time spent on probes", f"{share * 100:.1f} %"
    record = report.record_of("pruned") or report.record_of("dense")
    for name, value in (record.made_by if record else {}).items():
        yield f"measured with {name}", str(value)
