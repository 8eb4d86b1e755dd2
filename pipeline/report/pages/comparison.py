"""The comparison as one HTML file that needs nothing else."""

from dataclasses import asdict
from typing import Any

from pipeline.report import colours
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.figures import published_names
from pipeline.report.compare.groups import differing_keys, value_text
from pipeline.report.compare.records import ComparedRun
from pipeline.report.compare.table import (
    COLUMNS,
    PUBLISHED_COLUMNS,
    protocols_differ,
    published_rows,
    rows,
)
from pipeline.report.html import render, resource, unless_secret


def render_comparison(comparison: Comparison) -> str:
    """The page's HTML. Everything that comes from the runs is escaped."""
    own, shared = "pipeline.report.compare", "pipeline.report"
    keys = differing_keys(comparison.runs)
    return render(
        "compare/comparison.html.j2",
        resource(shared, "page.css") + resource(own, "comparison.css"),
        resource(shared, "drawing.js") + resource(own, "comparison.js"),
        comparison=comparison,
        columns=COLUMNS,
        rows=rows(comparison.runs),
        keys=keys,
        settings=[(run, _values(run, keys)) for run in comparison.runs],
        published_columns=PUBLISHED_COLUMNS,
        published_rows=published_rows(comparison.runs, comparison.published),
        protocols_differ=protocols_differ(comparison.runs),
        published_names=published_names(comparison.charts),
        group_colours=_colours(comparison),
        data=_drawn(comparison),
    )


def _values(run: ComparedRun, keys: list[str]) -> list[str]:
    return [unless_secret(key, value_text(key, run.settings.get(key))) for key in keys]


def _colours(comparison: Comparison) -> list[str]:
    known = colours.GROUPS
    return [known[place % len(known)] for place in range(len(comparison.groups))]


def _drawn(comparison: Comparison) -> dict[str, Any]:
    """What comparison.js draws."""
    return {
        "charts": [asdict(chart) for chart in comparison.charts],
        "trade_offs": [asdict(chart) for chart in comparison.trade_offs],
        "maps": [asdict(each) for each in comparison.maps],
        "colours": {
            "groups": _colours(comparison),
            "shades": len(colours.GROUPS),
            "published": colours.PUBLISHED,
            "dimensions": colours.DIMENSIONS,
            "tints": colours.TINTS,
        },
    }
