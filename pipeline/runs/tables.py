"""Tables of a finished run for its trackers: steps, candidates, sensitivity."""

from collections.abc import Iterable, Sequence

from pipeline.report.data import RunReport
from pipeline.tracking.metrics import Value

Table = tuple[Sequence[str], Iterable[Sequence[Value | None]]]
"""Columns, and rows in their order."""

UNIT = ("unit", "layer", "width_after")
PROBED = ("probe_ppl", "probe_accuracy", "decode_ms")


def tables_of(report: RunReport) -> dict[str, Table]:
    """By name; those without rows are left out. Steps count from 1, as ``prune/step`` does.

    W&B has the number of steps under the name ``steps``.
    """
    tables = {"steps_table": _steps(report), "candidates": _candidates(report)}
    tables["sensitivity"] = _sensitivity(report)
    return {name: (columns, rows) for name, (columns, rows) in tables.items() if rows}


def _steps(report: RunReport) -> tuple[Sequence[str], list[Sequence[Value | None]]]:
    columns = ("step", "dimension", *UNIT, "score", "ratio_percent", "params", *PROBED)
    rows: list[Sequence[Value | None]] = []
    for step in report.steps:
        record = report.records.get(step.step)
        decode = (
            record.latencies[0].timing("decode").median_ms if record and record.latencies else None
        )
        probed = (record.ppl, record.accuracy, decode) if record else (None, None, None)
        chosen = step.chosen.to_json().values()
        shown = (step.decision.score, step.ratio_percent, step.params)
        rows.append((step.step + 1, step.dimension, *chosen, *shown, *probed))
    return columns, rows


def _candidates(report: RunReport) -> tuple[Sequence[str], list[Sequence[Value | None]]]:
    rows: list[Sequence[Value | None]] = [
        (step.step + 1, *scored.candidate.to_json().values(), scored.score)
        for step in report.steps
        for scored in step.decision.scored
    ]
    return ("step", *UNIT, "ppl"), rows


def _sensitivity(report: RunReport) -> tuple[Sequence[str], list[Sequence[Value | None]]]:
    rows: list[Sequence[Value | None]] = [
        (dimension, *loss.candidate.to_json().values(), loss.score, of_dimension.dense_ppl)
        for dimension, of_dimension in report.sensitivity.items()
        for loss in of_dimension.losses
    ]
    return ("dimension", *UNIT, "ppl", "dense_ppl"), rows
