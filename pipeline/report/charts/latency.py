"""Time of prefill and decoding along a run; their speeds at the end of every run."""

import math
from collections.abc import Callable, Iterator

from pipeline.measure.record import Latency, Record
from pipeline.report import colours
from pipeline.report.charts.base import Chart, Marker, Source, Stroke
from pipeline.report.charts.comparison import over_ratio
from pipeline.report.charts.run import Curve, Reading, dense_level, over_removed, probed
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.quantities import DECODE, PREFILL
from pipeline.report.data import RunReport
from pipeline.report.wording import number, relative_change

Time = Callable[[Latency], float]


def of_run(report: RunReport) -> Iterator[Chart]:
    """In percent of the dense model's; in ms where that was not measured."""
    dense = report.dense.latency if report.dense else None
    curves = [
        Curve(
            _readings(report, lambda latency: latency.prefill.median_ms, dense),
            "prefill",
            Stroke(colours.PREFILL),
            Marker(colours.PREFILL),
        ),
        Curve(
            _readings(report, lambda latency: latency.decode.median_ms, dense),
            "decode",
            Stroke(colours.DECODE, "dotted"),
            Marker(colours.DECODE, "square"),
        ),
    ]
    measured = [curve for curve in curves if curve.readings]
    levels = dense_level(measured[0]) if measured and dense else ()
    axis = "percent of the dense model's" if dense else "ms"
    yield from over_removed(report, "Latency", axis, measured, levels, order=4)


def _readings(report: RunReport, time: Time, dense: Latency | None) -> tuple[Reading, ...]:
    def reading(record: Record) -> Reading | None:
        if record.latency is None:
            return None
        now_ms = time(record.latency)
        text = f"{number(now_ms)} ms"
        if dense is None:
            return Reading(None, 0.0, now_ms, text)
        if record is not report.dense:
            text += f" ({relative_change(time(dense), now_ms)})"
        value = now_ms / time(dense) * 100 if time(dense) > 0 else math.nan
        return Reading(None, 0.0, value, text)

    return probed(report, reading)


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """Tokens per second."""
    yield from over_ratio(PREFILL, comparison, order=3)
    yield from over_ratio(DECODE, comparison, order=4)


CHART = Source(of_run, of_comparison)
