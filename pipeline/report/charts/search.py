"""How a search after the phases went: its best state so far, and the front that it ended with."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report import colours
from pipeline.report.charts.base import (
    Axis,
    Chart,
    Key,
    Level,
    Line,
    Marker,
    Point,
    Source,
    Stroke,
    is_logarithmic,
)
from pipeline.report.charts.run import PLAIN_MARKER, PLAIN_STROKE, REMOVED_AXIS
from pipeline.report.charts.sections import ALONG_RUN
from pipeline.report.data import RunReport
from pipeline.report.wording import number

MEASURES = {"perplexity": "perplexity", "divergence": "KL from the dense model, nats"}
"""What a search goes by, as an axis is called."""
DIGITS = {"perplexity": 2, "divergence": 4}
FOUND, START = Marker(colours.ORANGE, "diamond"), Marker(colours.BLUE, "square")


def of_run(report: RunReport) -> Iterator[Chart]:
    """The best so far over the states that were evaluated; and the last front, if there is one."""
    if report.search:
        yield from _history(report.search)
        if report.search.get("front"):
            yield _front(report.search)


def _history(search: Mapping[str, Any]) -> Iterator[Chart]:
    measure = search["measure"]
    points = tuple(
        Point(
            entry["evaluations"],
            entry["best"],
            f"generation {entry['generation']}, {entry['evaluations']:,} states: "
            f"{number(entry['best'], DIGITS[measure])}",
        )
        for entry in search["history"]
        if entry["best"] is not None
    )
    if len(points) > 1:
        values = [point.y for point in points]
        yield Chart(
            section=ALONG_RUN,
            title="Best state of the search",
            x=Axis("states evaluated"),
            y=Axis(MEASURES[measure], is_logarithmic(values)),
            lines=(Line(points, PLAIN_STROKE, PLAIN_MARKER),),
            levels=(Level(points[0].y),),
            own_keys=(Key("where it began", Stroke(colours.MUTED, "dashed")),),
            scale="absolute",
            order=60,
        )


def _front(search: Mapping[str, Any]) -> Chart:
    """Perplexity over the removed share, with where the search began and what was taken."""
    front = tuple(
        Point(
            each["ratio_percent"],
            each["perplexity"],
            f"{each['ratio_percent']:.2f} % removed: {number(each['perplexity'])}",
        )
        for each in search["front"]
    )
    lines = [Line(front, PLAIN_STROKE, PLAIN_MARKER, "last front")]
    for name, marker in (("start", START), ("found", FOUND)):
        each = search[name]
        if each["perplexity"] is not None:
            tip = f"{name}: {number(each['perplexity'])} at {each['ratio_percent']:.2f} %"
            point = Point(each["ratio_percent"], each["perplexity"], tip)
            lines.append(Line((point,), Stroke(marker.colour), marker, name))
    values = [point.y for line in lines for point in line.points]
    return Chart(
        section=ALONG_RUN,
        title="Last front of the search",
        x=Axis(REMOVED_AXIS),
        y=Axis(MEASURES["perplexity"], is_logarithmic(values)),
        lines=tuple(lines),
        own_keys=tuple(Key(line.name, marker=line.marker) for line in lines),
        scale="absolute",
        order=61,
    )


CHART = Source(of_run)
