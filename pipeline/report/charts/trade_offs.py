"""Quality against measured latency, with the Pareto front of every device."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.report import colours
from pipeline.report.charts.base import Axis, Chart, Key, Line, Marker, Point, Source
from pipeline.report.charts.comparison import (
    DENSE_MARKER,
    group_keys,
    group_look,
    place_of,
    protocol_notes,
)
from pipeline.report.charts.sections import OVER_LATENCY
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.groups import Group
from pipeline.report.compare.quantities import (
    ACCURACY,
    DECODE_MS,
    PERPLEXITY,
    PREFILL_MS,
    Quantity,
    value_text,
)
from pipeline.report.compare.records import ComparedRun

BETWEEN_PROTOCOLS = "; "
"""Between how time and how quality were measured."""
FRONT_KEY = Key(
    "on the Pareto front: no other is faster or better beyond doubt, and neither slower nor worse",
    marker=Marker(colours.INK, "ring"),
)


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """Quality is accuracy; perplexity where no run has an accuracy."""
    has_accuracy = any(run.is_done and run.accuracy() for run in comparison.runs)
    quality = ACCURACY if has_accuracy else PERPLEXITY
    yield from _trade_off(quality, PREFILL_MS, comparison, order=1)
    yield from _trade_off(quality, DECODE_MS, comparison, order=2)


def _trade_off(
    quality: Quantity, time: Quantity, comparison: Comparison, order: int
) -> Iterator[Chart]:
    lines: list[Line] = []
    by_protocol: dict[str, list[Point]] = {}
    protocols: list[str] = []
    for place, group in enumerate(comparison.groups):
        for protocol, points in _pairs(quality, time, group).items():
            look = group_look(place, place_of(protocol, protocols))
            lines.append(Line(tuple(points), *look, name=group.label))
            by_protocol.setdefault(protocol, []).extend(points)
    if not lines:
        return
    fronts = [pareto_front(points, quality is ACCURACY) for points in by_protocol.values()]
    on_front = {point for front in fronts for point in front}
    yield Chart(
        section=OVER_LATENCY,
        title=f"{quality.title} against {time.title} latency",
        x=Axis(f"{time.title} latency ({time.axis})"),
        y=Axis(quality.axis),
        lines=tuple(
            replace(line, points=tuple(replace(p, ringed=p in on_front) for p in line.points))
            for line in lines
        ),
        fronts=tuple(tuple((point.x, point.y) for point in front) for front in fronts),
        keys=(*group_keys(comparison), FRONT_KEY, Key("dense model", marker=DENSE_MARKER)),
        notes=protocol_notes(_shortest(protocols)),
        order=order,
    )


def _shortest(protocols: list[str]) -> list[str]:
    """How time was measured, where that alone tells the protocols apart."""
    of_time = [protocol.rpartition(BETWEEN_PROTOCOLS)[0] for protocol in protocols]
    return protocols if len(set(of_time)) < len(protocols) else of_time


def _pairs(quality: Quantity, time: Quantity, group: Group) -> dict[str, list[Point]]:
    """The group's runs by what must be equal for two points to be on one front."""
    by_protocol: dict[str, list[Point]] = {}
    for run in group.runs:
        if not run.is_done:
            continue
        for pruned in (False, True):
            worth, duration = quality.of(run, pruned), time.of(run, pruned)
            if worth is None or duration is None:
                continue
            protocol = f"{duration.protocol}{BETWEEN_PROTOCOLS}{worth.protocol}"
            points = by_protocol.setdefault(protocol, [])
            tip = "\n".join([
                _state_text(group, run, pruned),
                f"{quality.title.lower()} {value_text(worth, quality.unit)}",
                f"{time.title} {value_text(duration, time.unit)}",
                duration.protocol,
            ])  # fmt: skip
            marker = None if pruned else DENSE_MARKER
            point = Point(duration.value, worth.value, tip, worth.ends, marker, reach=duration.ends)
            if point not in points:
                points.append(point)
    return by_protocol


def _state_text(group: Group, run: ComparedRun, pruned: bool) -> str:
    if not pruned:
        return f"dense {run.model_name}"
    return f"{group.label}, {run.removed_percent or 0:.1f} % removed"


def pareto_front(points: Iterable[Point], upwards: bool = True) -> tuple[Point, ...]:
    """Points that no other beats; the fastest first. ``upwards``: a higher ``y`` is better.

    Another one beats a point that is neither faster nor better than it, and slower or worse beyond
    both intervals: within them nobody wins.
    """
    sign = 1 if upwards else -1
    distinct = sorted(set(points), key=lambda p: (p.x, -sign * p.y))
    return tuple(p for p in distinct if not any(_beats(other, p, sign) for other in distinct))


def _beats(one: Point, other: Point, sign: int) -> bool:
    if one.x > other.x or sign * one.y < sign * other.y:
        return False
    (_, slowest), (fastest, _) = one.reach or (one.x, one.x), other.reach or (other.x, other.x)
    ours, theirs = (sorted(sign * y for y in p.interval or (p.y, p.y)) for p in (one, other))
    return slowest < fastest or ours[0] > theirs[1]


CHART = Source(of_comparison=of_comparison)
