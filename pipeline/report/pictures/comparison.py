"""Several runs as one picture."""

from collections.abc import Sequence

from pipeline.report.charts import figures_of_comparison
from pipeline.report.charts.base import Figure
from pipeline.report.charts.study import figures_of_search
from pipeline.report.compare.answers import Answer
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.study import SearchReport
from pipeline.report.drawing.shapes import Drawing, wrapped
from pipeline.report.pictures.sheet import EDGE, LINE_SIZE, WIDTH, sheet, title_block

MOST_ANSWERS = 6
OF_SEARCH = 16
"""Of a search there are answers about every key."""


def comparison_picture(comparison: Comparison) -> Drawing:
    """The sheet; as high as there is to show."""
    figures = figures_of_comparison(comparison)
    return _picture(comparison.name, comparison.about, comparison.answers[:MOST_ANSWERS], figures)


def search_picture(search: SearchReport) -> Drawing:
    """A search by itself."""
    return _picture(
        search.name, search.about, search.answers[:OF_SEARCH], list(figures_of_search(search))
    )


def _picture(
    name: str, about: str, answers: Sequence[Answer], figures: Sequence[Figure]
) -> Drawing:
    lines = [
        line
        for answer in answers
        for line in wrapped(f"{answer.question}: {answer.text}", WIDTH - 2 * EDGE, LINE_SIZE)
    ]
    return sheet(title_block(name, about, 64 + 19 * len(lines) + 8, lines), figures)
