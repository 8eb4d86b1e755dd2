"""Drawings as PNG and PDF, painted by matplotlib. No axes: every shape has its place already."""

import io
from typing import TYPE_CHECKING, Any

from pipeline.report.drawing.shapes import Circle, Drawing, Group, Look, Path, Shape, Text

if TYPE_CHECKING:
    from matplotlib.backend_bases import GraphicsContextBase, RendererBase

POINTS_PER_INCH = 72
"""A pixel of a drawing is a point of the figure."""
ALIGNMENTS = {"start": "left", "middle": "center", "end": "right"}
SETTINGS = {"pdf.fonttype": 42, "path.simplify": False}
"""Text in a PDF stays text that can be searched."""


def png(drawing: Drawing, width_px: int) -> bytes:
    """An image ``width_px`` wide."""
    return _saved(drawing, "png", dpi=POINTS_PER_INCH * width_px / drawing.width)


def pdf(drawing: Drawing) -> bytes:
    """One page."""
    # No date: the same drawing is the same file.
    return _saved(drawing, "pdf", metadata={"CreationDate": None})


def _saved(drawing: Drawing, kind: str, **options: Any) -> bytes:
    from matplotlib import style
    from matplotlib.artist import Artist
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Painting(Artist):
        def draw(self, renderer: "RendererBase") -> None:
            Painter(drawing, renderer, self).paint(drawing.shapes, 0, 0)

    size = (drawing.width / POINTS_PER_INCH, drawing.height / POINTS_PER_INCH)
    file = io.BytesIO()
    # A user's own matplotlibrc must not change what a report looks like.
    with style.context(SETTINGS, after_reset=True):
        figure = Figure(figsize=size, facecolor="white")
        FigureCanvasAgg(figure)
        figure.add_artist(Painting())
        figure.savefig(file, format=kind, **options)
    return file.getvalue()


class Painter:
    """Paints shapes with one renderer of matplotlib."""

    def __init__(self, drawing: Drawing, renderer: "RendererBase", artist: Any) -> None:
        from matplotlib.transforms import Affine2D

        self.renderer = renderer
        self.figure = artist.figure
        scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
        # The first row of a drawing is its top, that of a figure its bottom.
        self.transform = Affine2D().scale(scale, -scale).translate(0, drawing.height * scale)

    def paint(self, shapes: tuple[Shape, ...], right: float, down: float) -> None:
        """Paint shapes, moved right and down."""
        for shape in shapes:
            match shape:
                case Group() if not shape.hidden:
                    x, y = shape.place
                    self.paint(shape.shapes, right + x, down + y)
                case Path():
                    self._path(shape, right, down)
                case Circle():
                    self._circle(shape, right, down)
                case Text():
                    self._text(shape, right, down)

    def _path(self, shape: Path, right: float, down: float) -> None:
        from matplotlib.path import Path as Outline

        for points in shape.parts:
            vertices = [(x + right, y + down) for x, y in points]
            if shape.closed:
                vertices.append(vertices[0])
            outline = Outline(vertices, closed=shape.closed)
            self._draw(outline, shape.look, self.transform)

    def _circle(self, shape: Circle, right: float, down: float) -> None:
        from matplotlib.path import Path as Outline
        from matplotlib.transforms import Affine2D

        place = Affine2D().scale(shape.radius).translate(shape.x + right, shape.y + down)
        self._draw(Outline.unit_circle(), shape.look, place + self.transform)

    def _draw(self, outline: Any, look: Look, transform: Any) -> None:
        from matplotlib.colors import to_rgba

        context: GraphicsContextBase = self.renderer.new_gc()
        context.set_alpha(look.opacity)
        context.set_linewidth(look.width if look.stroke else 0.0)
        context.set_foreground(look.stroke or "white")
        context.set_joinstyle("round")
        context.set_capstyle("round" if look.round_caps else "butt")
        if look.dashes:
            context.set_dashes(0, look.dashes)
        fill = to_rgba(look.fill, look.opacity) if look.fill else None
        self.renderer.draw_path(context, outline, transform, fill)
        context.restore()

    def _text(self, shape: Text, right: float, down: float) -> None:
        from matplotlib.text import Text as Label

        x, y = self.transform.transform((shape.x + right, shape.y + down))
        label = Label(
            x,
            y,
            shape.text,
            ha=ALIGNMENTS[shape.anchor],
            va="baseline",
            fontsize=shape.size,
            fontweight="bold" if shape.bold else "normal",
            color=shape.colour,
            parse_math=False,  # a name may hold dollar signs
        )
        label.set_figure(self.figure)
        label.draw(self.renderer)
