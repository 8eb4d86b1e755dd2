"""Quantities of several runs over the removed share: a line for each group of runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.report import colours
from pipeline.report.charts.base import (
    Axis,
    Chart,
    Dash,
    Key,
    Level,
    Line,
    Marker,
    Point,
    Scale,
    Shape,
    Stroke,
    is_logarithmic,
)
from pipeline.report.charts.run import DENSE_KEY, REMOVED_AXIS
from pipeline.report.charts.sections import OVER_REMOVED
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.groups import Group
from pipeline.report.compare.published import (
    BLOCKPRUNER,
    DENSE,
    PAPER,
    PublishedPoint,
    accuracy_as_published,
    does_the_same,
    ppl_as_published,
)
from pipeline.report.compare.quantities import (
    ACCURACY,
    PERPLEXITY,
    Quantity,
    percent_of_dense,
    percent_text,
    value_text,
)
from pipeline.report.compare.records import ComparedRun, Value

SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle")
"""Shapes repeat later than colours do, so that no two groups look alike among many."""
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dash-dotted")
"""Tell lines of one group apart that must not be joined: another device or protocol."""
DENSE_MARKER = Marker(colours.MUTED, "diamond", hollow=True)
PUBLISHED_STROKE = Stroke(colours.PUBLISHED, "dotted")


def over_ratio(quantity: Quantity, comparison: Comparison, order: int = 100) -> Iterator[Chart]:
    """A quantity of every finished run, beside the paper's where it measured the same.

    Where the quantity has percents, there is a chart of those and one of plain values.
    """
    scales: tuple[Scale, ...] = ("relative", "absolute") if quantity.has_percent else ("both",)
    for scale in scales:
        yield from _over_ratio(quantity, comparison, scale, order)


def _over_ratio(
    quantity: Quantity, comparison: Comparison, scale: Scale, order: int
) -> Iterator[Chart]:
    protocols: list[str] = []
    ours = [
        line
        for place, group in enumerate(comparison.groups)
        for line in _lines(quantity, place, group, scale, protocols)
    ]
    if not ours:
        return
    lines = [*ours, *([] if quantity.has_percent else _published(quantity, comparison))]
    levels = {point.y for line in ours for point in line.points if point.marker == DENSE_MARKER}
    values = [point.y for line in lines for point in line.points]
    axis = "percent of the dense model's" if scale == "relative" else quantity.axis
    yield Chart(
        section=OVER_REMOVED,
        title=quantity.title,
        x=Axis(REMOVED_AXIS),
        y=Axis(axis, is_logarithmic(values)),
        lines=tuple(lines),
        # drawn where all lines start from the same one
        levels=(Level(levels.pop()),) if len(levels) == 1 else (),
        keys=(
            *group_keys(comparison),
            Key(DENSE_KEY.label, DENSE_KEY.stroke, DENSE_MARKER),
            *(Key(line.name, line.stroke, line.marker) for line in lines[len(ours) :]),
        ),
        notes=protocol_notes(protocols),
        scale=scale,
        order=order,
    )


def group_keys(comparison: Comparison) -> tuple[Key, ...]:
    """Every group that there is a point of."""
    return tuple(
        Key(group.label, *group_look(place, 0))
        for place, group in enumerate(comparison.groups)
        if group.is_drawn
    )


def group_look(place: int, protocol: int) -> tuple[Stroke, Marker]:
    """How a group's line looks that was measured with the chart's n-th protocol."""
    colour = colours.group(place)
    shape = SHAPES[place // len(colours.GROUPS) % len(SHAPES)]
    dash = DASHES[protocol % len(DASHES)]
    return Stroke(colour, dash), Marker(colour, shape, hollow=protocol % 2 == 1)


def protocol_notes(protocols: Sequence[str]) -> tuple[str, ...]:
    """How all was measured, or which dashes stand for which way to measure."""
    if len(protocols) <= 1:
        return tuple(protocols)
    return tuple(f"{DASHES[i % len(DASHES)]}: {text}" for i, text in enumerate(protocols))


def place_of(protocol: str, protocols: list[str]) -> int:
    """The protocol's place among those of the chart, which gets it where it is new."""
    if protocol not in protocols:
        protocols.append(protocol)
    return protocols.index(protocol)


def _lines(
    quantity: Quantity, place: int, group: Group, scale: Scale, protocols: list[str]
) -> Iterator[Line]:
    """A line for each way in which the group's runs were measured, the dense model first."""
    by_protocol: dict[str, list[Point]] = {}
    for run in group.runs:
        plain, percent = quantity.of(run, True), percent_of_dense(quantity, run)
        value = percent if scale == "relative" else plain
        if not run.is_done or value is None or plain is None or run.removed_percent is None:
            continue
        points = by_protocol.setdefault(value.protocol, _dense_start(quantity, run, scale))
        tip = _tip(group, run, quantity, plain, percent)
        points.append(Point(run.removed_percent, value.value, tip, value.ends))
    for protocol, points in by_protocol.items():
        look = group_look(place, place_of(protocol, protocols))
        yield Line(tuple(points), *look, name=group.label)
    for run in group.runs:
        yield from _recovery(quantity, place, group, run, scale)


def _recovery(
    quantity: Quantity, place: int, group: Group, run: ComparedRun, scale: Scale
) -> Iterator[Line]:
    """From what a model had before it was recovered to what it has then."""
    if run.before_recovery is None or run.removed_percent is None or not run.is_done:
        return
    points = []
    for each, words in ((replace(run, pruned=run.before_recovery), ", before recovery"), (run, "")):
        plain, percent = quantity.of(each, True), percent_of_dense(quantity, each)
        value = percent if scale == "relative" else plain
        if value is None or plain is None:
            return
        tip = f"{_tip(group, each, quantity, plain, percent)}{words}"
        points.append(Point(run.removed_percent, value.value, tip))
    before, after = points
    if before.y != after.y:
        stroke, marker = group_look(place, 0)
        towards: Shape = "triangle" if after.y > before.y else "triangle-down"
        yield Line(
            (replace(before, marker=replace(marker, hollow=True)), after),
            Stroke(stroke.colour, "dotted"),
            replace(marker, shape=towards),
        )


def _dense_start(quantity: Quantity, run: ComparedRun, scale: Scale) -> list[Point]:
    before, after = quantity.of(run, False), quantity.of(run, True)
    if before is None or after is None or before.protocol != after.protocol:
        return []
    tip = f"dense {run.model_name}: {value_text(before, quantity.unit)}\n{before.protocol}"
    if scale == "relative":
        return [Point(0.0, 100.0, tip, marker=DENSE_MARKER)]
    return [Point(0.0, before.value, tip, before.ends, DENSE_MARKER)]


def _tip(
    group: Group, run: ComparedRun, quantity: Quantity, value: Value, percent: Value | None
) -> str:
    share = f", {percent_text(percent)} of dense" if percent and quantity.has_percent else ""
    return "\n".join([
        f"{group.label}, {run.removed_percent:.1f} % removed",
        f"{quantity.title.lower()} {value_text(value, quantity.unit)}{share}",
        value.protocol,
        run.name,
    ])  # fmt: skip


def _published(quantity: Quantity, comparison: Comparison) -> Iterator[Line]:
    """The paper's points, where a run of ours measured the same thing."""
    alike = {ACCURACY.title: accuracy_as_published, PERPLEXITY.title: ppl_as_published}
    measured = alike.get(quantity.title)
    done = [run for run in comparison.runs if run.is_done]
    if measured is None or not any(
        ours == quantity.of(run, True) for run in done if (ours := measured(run))
    ):
        return
    lines: dict[tuple[str, str, str], list[Point]] = {}
    for point in comparison.published.points:
        value = _published_value(quantity, point)
        if value is None or not _is_beside(point, done):
            continue
        # the paper's dense model is where its own curve starts
        method = PAPER if point.method == DENSE else point.method
        where = f"published: {point.model}, {point.title} at {point.removed_percent:g} %"
        tip = f"{where}\n{value:.2f}\n{point.source.source}"
        points = lines.setdefault((point.model, point.source.name, method), [])
        points.append(Point(point.removed_percent, value, tip))
    for (_, source, method), points in lines.items():
        shape: Shape = "cross" if method == BLOCKPRUNER else "diamond"
        marker = Marker(colours.PUBLISHED, shape, hollow=True)
        of = "published" if source == PAPER else f"published ({source})"
        yield Line(tuple(points), PUBLISHED_STROKE, marker, f"{of}: {method}")


def _published_value(quantity: Quantity, point: PublishedPoint) -> float | None:
    """A point's value where its source measures as ours that are drawn."""
    if quantity is ACCURACY:
        return point.accuracy_percent if point.source.has_our_accuracy else None
    return point.ppl if point.source.has_our_perplexity else None


def _is_beside(point: PublishedPoint, done: Sequence[ComparedRun]) -> bool:
    """Whether a point is drawn: the paper's own curve, and methods that a run of ours has."""
    return point.source.name == PAPER or any(does_the_same(run, point) for run in done)
