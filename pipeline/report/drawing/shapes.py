"""Shapes: what every chart is drawn with, whatever it is written as. Lengths are CSS pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TEXT_SIZE = 12.0
XY = tuple[float, float]
Attributes = Mapping[str, str]
"""For the script of a page, e.g. ``class`` and ``data-tip``. Other formats leave them out."""


@dataclass(frozen=True, slots=True)
class Look:
    """Colours are as CSS writes them, #rrggbb; None for nothing."""

    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0
    """Of the stroke."""
    dashes: tuple[float, ...] = ()
    opacity: float = 1.0
    round_caps: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """Straight lines through the points of every part."""

    parts: tuple[tuple[XY, ...], ...]
    look: Look
    closed: bool = False
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Circle:
    """A circle."""

    x: float
    y: float
    radius: float
    look: Look
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text."""

    x: float
    y: float
    """Of the baseline."""
    text: str
    colour: str
    anchor: str = "start"
    """start, middle or end."""
    size: float = TEXT_SIZE
    bold: bool = False
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Shapes that belong together, moved to a place."""

    shapes: "tuple[Shape, ...]"
    attributes: Attributes = field(default_factory=dict)
    place: XY = (0.0, 0.0)
    hidden: bool = False
    """Whether only the script of a page may show it."""


Shape = Path | Circle | Text | Group


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a sheet."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    attributes: Attributes = field(default_factory=dict)


def line(x1: float, y1: float, x2: float, y2: float, look: Look, **data: str) -> Path:
    """A straight line."""
    return Path((((x1, y1), (x2, y2)),), look, attributes=data)


def rectangle(
    x: float,
    y: float,
    width: float,
    height: float,
    look: Look,
    attributes: Attributes | None = None,
) -> Path:
    """A rectangle."""
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Path((corners,), look, closed=True, attributes=attributes or {})


def hatching(x: float, y: float, width: float, height: float, colour: str) -> Path:
    """Diagonal lines over a rectangle."""
    distance = 7.0
    parts = []
    for number in range(1, int((width + height) / distance) + 1):
        along = number * distance  # x + y of every point of the line
        start, end = max(0.0, along - height), min(width, along)
        parts.append(((x + start, y + along - start), (x + end, y + along - end)))
    return Path(tuple(parts), Look(stroke=colour, width=0.9))


def text_width(text: str, size: float = TEXT_SIZE, bold: bool = False) -> float:
    """About how wide a text is: no format has the same font as the next."""
    ems = sum(_ems(character) for character in text)
    return ems * size * (1.1 if bold else 1.0)


def _ems(character: str) -> float:
    if character in "il.,:;|!'()[] jftI":
        return 0.36
    if character in "mwMW%—@":
        return 0.92
    return 0.7 if character.isupper() else 0.62


def shortened(text: str, width: float, size: float = TEXT_SIZE, bold: bool = False) -> str:
    """The text, or as much of its start as ``width`` has room for."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(f"{text}…", size, bold) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def wrapped(text: str, width: float, size: float = TEXT_SIZE) -> Iterator[str]:
    """The text in lines that ``width`` has room for; later ones are indented."""
    current, indent = "", ""
    for word in text.split():
        longer = f"{current} {word}" if current.strip() else f"{indent}{word}"
        if current.strip() and text_width(longer, size) > width:
            yield current
            indent = "     "
            longer = f"{indent}{word}"
        current = longer
    if current:
        yield current


def points_at(shapes: Sequence[Shape], place: XY) -> Group:
    """The shapes, moved to ``place``."""
    return Group(tuple(shapes), place=place)
