"""How recovery went: perplexity on held-out text over the tokens that were learnt from."""

from collections.abc import Iterator

from pipeline.report import colours
from pipeline.report.charts.base import (
    Axis,
    Chart,
    Dash,
    Key,
    Line,
    Marker,
    Point,
    Source,
    Stroke,
    is_logarithmic,
)
from pipeline.report.charts.sections import ALONG_RUN
from pipeline.report.data import RunReport

DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dash-dotted")


def of_run(report: RunReport) -> Iterator[Chart]:
    """One chart for each technique that learns, a line for each held-out text."""
    for technique, curve in report.learning.items():
        texts = list(dict.fromkeys(name for point in curve for name in point.get("held_out") or {}))
        lines = []
        for text, dash in zip(texts, DASHES, strict=False):
            points = [
                Point(
                    point["tokens"],
                    point["held_out"][text],
                    f"{technique} after {point['tokens']:,} tokens: perplexity "
                    f"{point['held_out'][text]:.2f} on {text}",
                )
                for point in curve
                if text in (point.get("held_out") or {})
            ]
            marker = Marker(colours.RECOVERED)
            lines.append(Line(tuple(points), Stroke(colours.RECOVERED, dash), marker, text))
        if lines:
            values = [point.y for line in lines for point in line.points]
            yield Chart(
                section=ALONG_RUN,
                title=f"Recovery by {technique}",
                x=Axis("tokens learnt from"),
                y=Axis("held-out perplexity", logarithmic=is_logarithmic(values)),
                lines=tuple(lines),
                own_keys=tuple(Key(line.name, line.stroke, line.marker) for line in lines),
                scale="absolute",
                order=50,
            )


CHART = Source(of_run)
