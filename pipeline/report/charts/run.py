"""Curves along one run: what every chart over the removed share has in common."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.measure.record import Record
from pipeline.report import colours
from pipeline.report.charts.base import (
    Area,
    Axis,
    Band,
    Chart,
    Key,
    Level,
    Line,
    Marker,
    Point,
    Stroke,
    is_logarithmic,
)
from pipeline.report.charts.sections import ALONG_RUN
from pipeline.report.data import RunReport, finite
from pipeline.report.wording import dimension_name, number, removal

REMOVED_AXIS = "parameters removed (%)"
PLAIN_STROKE, PLAIN_MARKER = Stroke(colours.PLAIN_LINE), Marker(colours.PLAIN_LINE)
DENSE_KEY = Key("dense model", Stroke(colours.MUTED, "dashed"))


@dataclass(frozen=True, slots=True)
class Reading:
    """A value after one step, or of the dense model."""

    step: int | None
    """None for the dense model."""
    ratio_percent: float
    value: float
    text: str
    """The value as a person reads it."""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Readings that are joined."""

    readings: tuple[Reading, ...]
    name: str = ""
    """Shown where a chart has curves of several names."""
    stroke: Stroke = PLAIN_STROKE
    marker: Marker = PLAIN_MARKER


def probed(report: RunReport, reading: Callable[[Record], Reading | None]) -> tuple[Reading, ...]:
    """What ``reading`` makes of every record, at the step and ratio that the record is of.

    The dense model comes first. What is no finite number is left out.
    """
    readings = []
    for step, ratio_percent, record in _records(report):
        made = reading(record)
        if made is not None and finite(made.value) is not None:
            readings.append(Reading(step, ratio_percent, made.value, made.text, made.interval))
    return tuple(readings)


def reading_of(value: float | None, text: str | None = None) -> Reading | None:
    """A reading for ``probed``, which knows the step and the ratio; None without a value."""
    return None if value is None else Reading(None, 0.0, value, text or number(value, 3))


def _records(report: RunReport) -> Iterator[tuple[int | None, float, Record]]:
    if report.dense:
        yield None, 0.0, report.dense
    for step in report.steps:
        if step.step in report.records:
            yield step.step, step.ratio_percent, report.records[step.step]
    if report.pruned and report.steps and report.steps[-1].step not in report.records:
        yield report.steps[-1].step, report.steps[-1].ratio_percent, report.pruned


def dense_level(curve: Curve) -> tuple[Level, ...]:
    """The dense model's value along the whole axis, where it was measured."""
    readings = curve.readings
    return (Level(readings[0].value),) if readings and readings[0].step is None else ()


def over_removed(
    report: RunReport,
    title: str,
    axis: str,
    curves: Iterable[Curve],
    levels: Sequence[Level] = (),
    order: int = 100,
    note: str = "",
) -> Iterator[Chart]:
    """Curves over the removed share, with the dimensions behind them; none without a curve.

    ``note`` is small print below it.
    """
    drawn = [curve for curve in curves if curve.readings]
    readings = [reading for curve in drawn for reading in curve.readings]
    if len(readings) <= len(drawn):  # one point is no curve
        return
    values = [reading.value for reading in readings] + [level.value for level in levels]
    names = {curve.name for curve in drawn}
    yield Chart(
        section=ALONG_RUN,
        title=title,
        x=Axis(REMOVED_AXIS),
        y=Axis(axis, is_logarithmic(values)),
        lines=tuple(_line(report, curve, drawn) for curve in drawn),
        levels=tuple(levels),
        bands=tuple(
            Band(start, end, colours.dimension(name)) for name, start, end in stretches(report)
        ),
        own_keys=tuple(
            Key(curve.name, curve.stroke, curve.marker) for curve in drawn if len(names) > 1
        ),
        keys=(*_dimension_keys(report), DENSE_KEY),
        notes=(note,) if note else (),
        order=order,
    )


def stretches(report: RunReport) -> list[tuple[str, float, float]]:
    """Each dimension with the ratios from which and to which it was pruned, without gaps."""
    dimensions: list[tuple[str, float, float]] = []
    for dimension, group in groupby(report.steps, key=lambda step: step.dimension):
        start = dimensions[-1][2] if dimensions else 0.0
        dimensions.append((dimension, start, list(group)[-1].ratio_percent))
    return dimensions


def _dimension_keys(report: RunReport) -> list[Key]:
    return [
        Key(dimension_name(name), area=Area(colours.tint(colour), colour))
        for name in report.dimensions
        for colour in [colours.dimension(name)]
    ]


def _line(report: RunReport, curve: Curve, curves: Sequence[Curve]) -> Line:
    points = tuple(
        Point(r.ratio_percent, r.value, _tip(report, r, curves), r.interval) for r in curve.readings
    )
    return Line(points, curve.stroke, curve.marker, curve.name, shaded=True)


def _tip(report: RunReport, reading: Reading, curves: Sequence[Curve]) -> str:
    """What all curves say at a step, and what went there."""
    several = len({curve.name for curve in curves}) > 1
    values = [
        f"{curve.name}: {each.text}" if several else each.text
        for curve in curves
        for each in curve.readings
        if each.step == reading.step
    ]
    return "\n".join(
        [*values, step_text(report, reading.step), f"{reading.ratio_percent:.2f} % removed"]
    )


def step_text(report: RunReport, step: int | None) -> str:
    """A step and what it took, in words."""
    if step is None:
        return "dense model"
    chosen = next(each.chosen for each in report.steps if each.step == step)
    return f"step {step}: {removal(chosen, report.shape)}"
