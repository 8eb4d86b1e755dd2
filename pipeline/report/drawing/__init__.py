"""Turns descriptions of charts into shapes, and shapes into SVG, PNG and PDF."""

from pipeline.report.charts.base import Figure, LayerMap
from pipeline.report.drawing.cells import draw_map
from pipeline.report.drawing.plot import draw_chart
from pipeline.report.drawing.shapes import Drawing


def draw(figure: Figure, width: float, height: float) -> Drawing:
    """The one place in which a figure is drawn, for every format. Lengths are CSS pixels."""
    if isinstance(figure, LayerMap):
        return draw_map(figure, width, height)
    return draw_chart(figure, width, height)
