"""What is left of every layer: one cell for each block, filled as far as it is left."""

import math
from collections.abc import Iterator

from pipeline.report import colours
from pipeline.report.charts.base import Cell, CellState, LayerMap
from pipeline.report.drawing.shapes import (
    Drawing,
    Group,
    Look,
    Path,
    Shape,
    Text,
    hatching,
    rectangle,
    text_width,
)

NARROWEST = 30.0
"""Of a layer, so that its text fits."""
WIDEST, LOWEST = 118.0, 150.0
NAMES_WIDTH, LAYER_NUMBERS, NUMBER_WIDTH = 74.0, 22.0, 20.0
GAP = 6.0
TEXT_INSIDE = 18.0
"""What is left of a block holds text from this height on; below it, the text stands above."""
SMALL_TEXT, SMALLEST_TEXT = 11.0, 8.0


def rows_of_layers(figure: LayerMap, width: float, height: float = math.inf) -> int:
    """In how many rows the layers are set, so that the text of every cell fits.

    Fewer, with less text, where ``height`` has no room for so many.
    """
    if figure.compact:
        return 1
    in_row = max(4, int((width - NAMES_WIDTH) / NARROWEST))
    return min(math.ceil(figure.columns / in_row), max(1, int(min(height / LOWEST, 1e6))))


def draw_map(figure: LayerMap, width: float, height: float) -> Drawing:
    """A map without its title."""
    shapes = _compact(figure, width, height) if figure.compact else _full(figure, width, height)
    return Drawing(width, height, tuple(shapes))


def _full(figure: LayerMap, width: float, height: float) -> Iterator[Shape]:
    rows = rows_of_layers(figure, width, height)
    in_row = math.ceil(figure.columns / rows)
    pitch = min((width - NAMES_WIDTH) / in_row, WIDEST)
    row_height = height / rows
    inner = row_height - LAYER_NUMBERS - GAP * (len(figure.rows) - 1) - (8 if rows > 1 else 0)
    tops: list[float] = []
    heights: list[float] = []
    for share in figure.rows.values():
        tops.append(sum(heights) + GAP * len(heights))
        heights.append(inner * share)
    bottom = tops[-1] + heights[-1]
    for row in range(rows):
        down = row * row_height
        for name, top, tall in zip(figure.rows, tops, heights, strict=True):
            yield Text(0, down + top + tall / 2 + 4, name, colours.INK, size=13)
        yield Text(0, down + bottom + 15, "layer", colours.MUTED, size=SMALL_TEXT)
    cell_width = pitch - max(3.0, pitch * 0.1)
    for cell in figure.cells:
        row, place = divmod(cell.column, in_row)
        x, down = NAMES_WIDTH + place * pitch, row * row_height
        yield _cell(cell, (x, down + tops[cell.row]), cell_width, heights[cell.row])
    for column in range(0, figure.columns, math.ceil(NUMBER_WIDTH / pitch)):
        row, place = divmod(column, in_row)
        x, y = NAMES_WIDTH + place * pitch + cell_width / 2, row * row_height + bottom + 15
        yield Text(x, y, str(column), colours.MUTED, "middle", SMALL_TEXT)


def _compact(figure: LayerMap, width: float, height: float) -> Iterator[Shape]:
    pitch = min(width / figure.columns, 34)
    tall = height / len(figure.rows)
    for cell in figure.cells:
        place = (cell.column * pitch, cell.row * tall)
        state = cell.states[-1]
        size = (pitch - max(1.0, pitch * 0.12), tall - 3)
        shapes = tuple(_plain(state, *size))
        yield Group(shapes, {"class": "cell", "data-tip": state.tip}, place)


def _plain(state: CellState, width: float, height: float) -> Iterator[Shape]:
    lost = state.lost
    if lost is None or state.is_gone:
        yield rectangle(0, 0, width, height, Look(lost or colours.KEPT))
        return
    kept = height * state.kept_share
    yield rectangle(0, 0, width, height, Look(colours.tint(lost)))
    yield rectangle(0, height - kept, width, kept, Look(colours.KEPT))
    yield rectangle(0.5, 0.5, width - 1, height - 1, Look(None, lost))


def _cell(cell: Cell, place: tuple[float, float], width: float, height: float) -> Group:
    """All states of a block, of which the last one shows."""
    last = cell.states[-1]
    if len(cell.states) == 1:
        states: tuple[Shape, ...] = tuple(_state(last, width, height))
    else:
        states = tuple(
            Group(
                tuple(_state(state, width, height)),
                {
                    "data-from": str(state.start),
                    "data-to": "" if state.end is None else str(state.end),
                    "data-tip": state.tip,
                },
                hidden=state is not last,
            )
            for state in cell.states
        )
    return Group(states, {"class": "cell", "data-tip": last.tip}, place)


def _state(state: CellState, width: float, height: float) -> Iterator[Shape]:
    kept, lost = height * state.kept_share, state.lost
    if lost is None:
        yield rectangle(0, 0, width, height, Look(colours.KEPT))
        return
    yield rectangle(0, 0, width, height, Look(colours.tint(lost)))
    yield hatching(0, 0, width, height - kept, lost)
    if kept:
        yield rectangle(0, height - kept, width, kept, Look(colours.KEPT))
    yield rectangle(0, 0, width, height, Look(None, lost, 1.2))
    if state.is_gone:
        strokes = (((0.0, 0.0), (width, height)), ((0.0, height), (width, 0.0)))
        yield Path(strokes, Look(stroke=lost, width=1.6), attributes={"class": "cross"})
    size = _text_size(state.text, width)
    if not state.text or size < SMALLEST_TEXT:
        return
    if not state.is_gone and kept >= TEXT_INSIDE:
        yield _label(state.text, width / 2, height - kept / 2, "#ffffff", size)
        return
    middle = height / 2 if state.is_gone else max(9.0, height - kept - 10)
    wide = min(width, text_width(state.text, size, bold=True) + 5)
    tall = size + 4
    yield rectangle(width / 2 - wide / 2, middle - tall / 2, wide, tall, Look("#ffffff"))
    yield _label(state.text, width / 2, middle, colours.INK, size)


def _text_size(text: str, width: float) -> float:
    """As large as the cell is wide enough for."""
    wanted = text_width(text, SMALL_TEXT, bold=True)
    return SMALL_TEXT * min(1.0, (width + 2) / max(1.0, wanted))


def _label(text: str, x: float, y: float, colour: str, size: float) -> Text:
    return Text(x, y + size * 0.36, text, colour, "middle", size, bold=True)
