"""Several runs as one picture."""

from pipeline.report.charts import figures_of_comparison
from pipeline.report.compare.comparison import Comparison
from pipeline.report.drawing.shapes import Drawing, wrapped
from pipeline.report.pictures.sheet import EDGE, LINE_SIZE, WIDTH, sheet, title_block

MOST_ANSWERS = 6


def comparison_picture(comparison: Comparison) -> Drawing:
    """The sheet; as high as there is to show."""
    lines = [
        line
        for answer in comparison.answers[:MOST_ANSWERS]
        for line in wrapped(f"{answer.question}: {answer.text}", WIDTH - 2 * EDGE, LINE_SIZE)
    ]
    title = title_block(comparison.name, comparison.about, 64 + 19 * len(lines) + 8, lines)
    return sheet(title, figures_of_comparison(comparison))
