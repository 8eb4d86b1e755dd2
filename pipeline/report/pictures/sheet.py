"""Sets titles, legends and figures on a sheet, section by section."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.report import colours
from pipeline.report.charts import by_section
from pipeline.report.charts.base import Figure, Key, Section
from pipeline.report.drawing import draw
from pipeline.report.drawing.marks import KEY_GAP, key_shapes, key_width
from pipeline.report.drawing.painter import pdf, png
from pipeline.report.drawing.shapes import (
    Drawing,
    Group,
    Look,
    Shape,
    Text,
    rectangle,
    shortened,
    text_width,
    wrapped,
)
from pipeline.report.drawing.svg import svg_file

WIDTH = 1280.0
WIDTH_PX = 1600
"""Of a PNG."""
EDGE, GUTTER = 14.0, 24.0
HEADING, CAPTION, NOTE = 24.0, 18.0, 14.0
NAME_SIZE, ABOUT_SIZE, LINE_SIZE = 22.0, 14.0, 15.0
HEADING_SIZE, CAPTION_SIZE = 14.0, 13.0
KEY_ROW = 18.0
FORMATS: dict[str, Callable[[Drawing], str | bytes]] = {
    "png": lambda drawing: png(drawing, WIDTH_PX),
    "svg": svg_file,
    "pdf": pdf,
}
"""How a sheet is written, by the end of the file's name."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the sheet, from its own top."""

    height: float
    shapes: tuple[Shape, ...]


def sheet(title: Block, figures: Sequence[Figure]) -> Drawing:
    """The title, and everything below it."""
    shown = without_choice(figures)
    blocks = [title, *(_section(*each) for each in by_section(shown))]
    placed, top = [], 0.0
    for block in blocks:
        placed.append(Group(block.shapes, place=(0.0, top)))
        top += block.height
    ground = rectangle(0, 0, WIDTH, top, Look("#ffffff"))
    return Drawing(WIDTH, top, (ground, *placed))


def without_choice(figures: Sequence[Figure]) -> list[Figure]:
    """A picture has no switch: relative values, and plain ones where there are no others."""
    relative = {figure.title for figure in figures if figure.scale == "relative"}
    return [f for f in figures if f.scale != "absolute" or f.title not in relative]


def title_block(name: str, about: str, height: float, lines: Sequence[str] = ()) -> Block:
    """A name in large letters, what it is about, and lines below."""
    room = WIDTH - 2 * EDGE
    shapes: list[Shape] = [
        Text(EDGE, 22, shortened(name, room, NAME_SIZE, bold=True), colours.INK, size=NAME_SIZE,
             bold=True),
        Text(EDGE, 42, shortened(about, room, ABOUT_SIZE), colours.MUTED, size=ABOUT_SIZE),
    ]  # fmt: skip
    for row, text in enumerate(lines):
        shapes.append(Text(EDGE, 62 + row * 19, text, colours.INK, size=LINE_SIZE))
    return Block(height, tuple(shapes))


def _section(section: Section, figures: list[Figure]) -> Block:
    """A heading with its legend, then the figures in rows."""
    keys = list(dict.fromkeys(key for figure in figures for key in figure.keys))
    heading, down = _heading(section, keys)
    shapes = list(heading)
    for row in _rows(section, figures):
        two_lines = any(_caption_width(figure) > width for figure, _, width in row)
        most_notes = max(len(_notes(figure, width)) for figure, _, width in row)
        for figure, left, width in row:
            parts = _captioned(figure, width, section.picture_height, two_lines, most_notes)
            shapes.append(Group(tuple(parts), place=(left, down)))
        down += section.picture_height
    return Block(down, tuple(shapes))


def _heading(section: Section, keys: Sequence[Key]) -> tuple[list[Shape], float]:
    """The title with the legend beside it, or below where it is too long; and its height."""
    left = EDGE + text_width(section.title, HEADING_SIZE, bold=True) + 12
    short = [Key(shortened(key.label, 420), key.stroke, key.marker, key.area) for key in keys]
    free = WIDTH - EDGE - left - sum(map(key_width, short)) + KEY_GAP
    shapes: list[Shape] = [Text(EDGE, 16, section.title, colours.INK, size=HEADING_SIZE, bold=True)]
    if text_width(section.lead) <= max(free, 0):
        shapes.append(Text(left, 16, section.lead, colours.MUTED))
    if free >= 0:
        return [*shapes, *_keys_from(short, left + free, 16)], HEADING
    down = HEADING
    for row in _key_rows(short):
        shapes += _keys_from(row, EDGE, down + 12)
        down += KEY_ROW
    return shapes, down + 4


def _key_rows(keys: Sequence[Key]) -> Iterator[list[Key]]:
    row: list[Key] = []
    for key in keys:
        if row and sum(map(key_width, [*row, key])) > WIDTH - 2 * EDGE:
            yield row
            row = []
        row.append(key)
    yield row


def _keys_from(keys: Sequence[Key], left: float, baseline: float) -> list[Shape]:
    shapes: list[Shape] = []
    for key in keys:
        shapes.append(key_shapes(key, left, baseline))
        left += key_width(key)
    return shapes


def _rows(section: Section, figures: list[Figure]) -> Iterator[list[tuple[Figure, float, float]]]:
    """Figures with their left edges and widths, row by row."""
    columns = section.picture_columns or len(figures)
    for start in range(0, len(figures), columns):
        row = figures[start : start + columns]
        weights = [figure.weight for figure in row]
        # a last row that is not full keeps the widths of the others
        places = columns if start else len(row)
        free = WIDTH - 2 * EDGE - GUTTER * (places - 1)
        unit = free / (sum(weights) + (places - len(row)))
        left, placed = EDGE, []
        for figure, weight in zip(row, weights, strict=True):
            placed.append((figure, left, weight * unit))
            left += weight * unit + GUTTER
        yield placed


def _notes(figure: Figure, width: float) -> list[str]:
    """The figure's small print in lines."""
    return [line for note in figure.notes for line in wrapped(note, width)]


def _captioned(
    figure: Figure, width: float, height: float, two_lines: bool, most_notes: int
) -> Iterator[Shape]:
    """The figure between its title and its notes, with axes where its neighbours have theirs."""
    top = 0.0
    if figure.title:
        top = CAPTION + (NOTE if two_lines else 0)
        yield from _caption(figure, width, two_lines)
    inside = height - top - NOTE * most_notes - 8
    yield Group(draw(figure, width, inside).shapes, place=(0.0, top))
    for row, line in enumerate(_notes(figure, width)):
        y = top + inside + 10 + NOTE * row
        yield Text(0, y, shortened(line, width), colours.MUTED)


def _caption_width(figure: Figure) -> float:
    """Of title, subtitle and legend in one line."""
    words = text_width(figure.title, CAPTION_SIZE, bold=True) + 8 + text_width(figure.subtitle)
    return words + sum(map(key_width, figure.own_keys))


def _caption(figure: Figure, width: float, two_lines: bool) -> Iterator[Shape]:
    """Title and subtitle, in one line or two; legend on the right."""
    own, left = sum(map(key_width, figure.own_keys)) - KEY_GAP, 0.0
    if any(not key.label for key in figure.own_keys):  # a mark before the title
        yield from _keys_from(figure.own_keys, -6, 13)
        left = 20.0
    else:
        yield from _keys_from(figure.own_keys, width - own, 13)
    title = shortened(figure.title, width - left - 60, CAPTION_SIZE, bold=True)
    yield Text(left, 13, title, colours.INK, size=CAPTION_SIZE, bold=True)
    after = left + text_width(title, CAPTION_SIZE, bold=True) + 8
    x, y = (left, 13 + NOTE) if two_lines else (after, 13.0)
    yield Text(x, y, shortened(figure.subtitle, width - x), colours.MUTED)
