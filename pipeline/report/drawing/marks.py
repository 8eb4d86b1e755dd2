"""Markers, and the small samples of a legend."""

from pipeline.report import colours
from pipeline.report.charts.base import Dash, Key, Marker, Stroke
from pipeline.report.drawing.shapes import (
    Attributes,
    Circle,
    Drawing,
    Group,
    Look,
    Path,
    Shape,
    Text,
    hatching,
    line,
    rectangle,
    text_width,
)

DASHES: dict[Dash, tuple[float, ...]] = {
    "solid": (),
    "dashed": (6, 4),
    "dotted": (2, 3),
    "dash-dotted": (8, 3, 2, 3),
}
SAMPLE_WIDTH, SAMPLE_HEIGHT = 22.0, 14.0
KEY_GAP = 16.0
"""Between two entries of a legend."""


def marker(
    look: Marker, x: float, y: float, radius: float, attributes: Attributes | None = None
) -> Shape:
    """A marker around a place. A filled one has a thin white edge, if it is not tiny."""
    edge = 1.0 if radius > 2 else 0.0  # noqa: PLR2004
    style = (
        Look("#ffffff", look.colour, 1.6)
        if look.hollow
        else Look(look.colour, "#ffffff" if edge else None, edge)
    )
    r, given = radius, attributes or {}
    match look.shape:
        case "square":
            return rectangle(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8, style, given)
        case "triangle" | "triangle-down":
            up = r if look.shape == "triangle" else -r
            corners = ((x - 1.1 * r, y + 0.9 * up), (x + 1.1 * r, y + 0.9 * up), (x, y - 1.1 * up))
            return Path((corners,), style, closed=True, attributes=given)
        case "diamond":
            d = 1.2 * r
            ends = ((x, y - d), (x + d, y), (x, y + d), (x - d, y))
            return Path((ends,), style, closed=True, attributes=given)
        case "cross":
            strokes = (((x - r, y - r), (x + r, y + r)), ((x - r, y + r), (x + r, y - r)))
            return Path(strokes, Look(stroke=look.colour, width=2), attributes=given)
        case "ring":
            return Circle(x, y, r, Look(None, look.colour, 1.6), given)
        case "circle":
            return Circle(x, y, r, style, given)


def stroke(look: Stroke, width: float) -> Look:
    """How a line of that kind is drawn."""
    return Look(stroke=look.colour, width=width, dashes=DASHES[look.dash])


def sample(key: Key) -> Drawing:
    """What a legend shows before the words."""
    shapes: list[Shape] = []
    middle = SAMPLE_HEIGHT / 2
    if key.area:
        x, size = (SAMPLE_WIDTH - SAMPLE_HEIGHT) / 2, SAMPLE_HEIGHT - 2
        shapes.append(rectangle(x, 1, size, size, Look(key.area.fill)))
        if key.area.hatched:
            shapes.append(hatching(x, 1, size, size, key.area.edge))
        shapes.append(rectangle(x, 1, size, size, Look(None, key.area.edge, 1.2)))
    if key.stroke:
        dashes = tuple(0.8 * length for length in DASHES[key.stroke.dash])  # seen beside a marker
        look = Look(stroke=key.stroke.colour, width=2, dashes=dashes)
        shapes.append(line(0, middle, SAMPLE_WIDTH, middle, look))
    if key.marker:
        radius = 6.0 if key.marker.shape == "ring" else 4.2
        shapes.append(marker(key.marker, SAMPLE_WIDTH / 2, middle, radius))
    return Drawing(SAMPLE_WIDTH, SAMPLE_HEIGHT, tuple(shapes))


def key_width(key: Key) -> float:
    """Of the sample, the words, and the room to the next entry."""
    return SAMPLE_WIDTH + 6 + text_width(key.label) + KEY_GAP


def key_shapes(key: Key, x: float, y: float) -> Group:
    """A legend's entry whose words stand on ``y``."""
    words = Text(SAMPLE_WIDTH + 6, 11, key.label, colours.INK)
    return Group((*sample(key).shapes, words), place=(x, y - 11))
