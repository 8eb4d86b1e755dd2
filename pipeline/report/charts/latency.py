"""Time of prefill and decoding along a run; their speeds at the end of every run."""

from collections.abc import Iterator

from pipeline.measure.intervals import Interval
from pipeline.measure.record import PARTS, Latency, Part, Record, speed_up
from pipeline.report import colours
from pipeline.report.charts.base import Chart, Marker, Source, Stroke
from pipeline.report.charts.comparison import over_ratio
from pipeline.report.charts.run import Curve, Reading, dense_level, over_removed, probed
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.quantities import DECODE, PREFILL
from pipeline.report.data import RunReport
from pipeline.report.dense_and_pruned import gain_text
from pipeline.report.wording import number

LOOKS: dict[Part, tuple[Stroke, Marker]] = {
    "prefill": (Stroke(colours.PREFILL), Marker(colours.PREFILL)),
    "decode": (Stroke(colours.DECODE, "dotted"), Marker(colours.DECODE, "square")),
}


def of_run(report: RunReport) -> Iterator[Chart]:
    """Of every workload, in percent of the dense model's; in ms where that was not measured."""
    for place, workload in enumerate(report.workloads):
        dense = report.dense.latency_of(workload) if report.dense else None
        curves = [
            Curve(_readings(report, workload, part, dense), part, *LOOKS[part]) for part in PARTS
        ]
        measured = [curve for curve in curves if curve.readings]
        levels = dense_level(measured[0]) if measured and dense else ()
        axis = "percent of the dense model's" if dense else "ms"
        title = f"Latency: {workload}" if len(report.workloads) > 1 else "Latency"
        note = _how(report, workload)
        yield from over_removed(report, title, axis, measured, levels, order=4 + place, note=note)


def _how(report: RunReport, workload: str) -> str:
    """What was timed and how, in words; each way once."""
    records = [report.dense, *report.records.values(), report.pruned]
    latencies = [record.latency_of(workload) for record in records if record]
    ways = dict.fromkeys(
        latency.protocol + (f" ({latency.why})" if latency.why else "")
        for latency in latencies
        if latency
    )
    return "; ".join(ways)


def _readings(
    report: RunReport, workload: str, part: Part, dense: Latency | None
) -> tuple[Reading, ...]:
    def reading(record: Record) -> Reading | None:
        latency = record.latency_of(workload)
        if latency is None:
            return None
        timing = latency.timing(part)
        text = f"{number(timing.median_ms)} ms"
        if dense is None:
            return Reading(None, 0.0, timing.median_ms, text, timing.interval.ends)
        if record is report.dense and timing.median_ms > 0:
            return Reading(None, 0.0, 100.0, text)
        gain = speed_up(dense, latency, part)
        if gain is None:
            return None
        share = Interval(100 / gain.median, 100 / gain.high, 100 / gain.low)
        return Reading(None, 0.0, share.median, f"{text}, speed {gain_text(gain)}", share.ends)

    return probed(report, reading)


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """Tokens per second."""
    yield from over_ratio(PREFILL, comparison, order=3)
    yield from over_ratio(DECODE, comparison, order=4)


CHART = Source(of_run, of_comparison)
