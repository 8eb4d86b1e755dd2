"""Several runs as one HTML file that needs nothing else."""

from pipeline.report.charts import figures_of_comparison
from pipeline.report.charts.study import figures_of_search
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.groups import differing_keys, value_text
from pipeline.report.compare.ranking import COLUMNS, LEGEND, ranking_rows
from pipeline.report.compare.records import ComparedRun
from pipeline.report.compare.seeds import SEED_COLUMNS, SEED_LEGEND, seed_rows
from pipeline.report.compare.study import SearchReport, columns_of, rows_of
from pipeline.report.compare.table import (
    PUBLISHED_COLUMNS,
    captions,
    columns,
    protocols_differ,
    published_rows,
    rows,
)
from pipeline.report.pages.figures import shown
from pipeline.report.pages.html import render, unless_secret


def comparison_page(comparison: Comparison) -> str:
    """The page's HTML. Everything that comes from the runs is escaped."""
    keys = differing_keys(comparison.runs)
    return render(
        "comparison.html.j2",
        comparison=comparison,
        sections=shown(figures_of_comparison(comparison)),
        columns=columns(comparison.runs),
        captions=captions(comparison.runs),
        rows=rows(comparison.runs),
        seed_columns=SEED_COLUMNS,
        seed_legend=SEED_LEGEND,
        seed_rows=list(seed_rows(comparison.seeds)),
        ranking_columns=COLUMNS,
        ranking_legend=LEGEND,
        ranking_rows=ranking_rows(comparison.rankings),
        keys=keys,
        settings=[(run, _values(run, keys)) for run in comparison.runs],
        published_columns=PUBLISHED_COLUMNS,
        published_rows=published_rows(comparison.runs, comparison.published),
        protocols_differ=protocols_differ(comparison.runs),
    )


def search_page(search: SearchReport) -> str:
    """The page of a search by itself."""
    return render(
        "search.html.j2",
        search=search,
        sections=shown(figures_of_search(search)),
        columns=columns_of(search),
        rows=list(rows_of(search)),
    )


def _values(run: ComparedRun, keys: list[str]) -> list[str]:
    values = {key: run.settings.get(key) for key in keys}
    return [unless_secret(key, value, value_text(key, value)) for key, value in values.items()]
