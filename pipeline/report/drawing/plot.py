"""Lines, bars and bands between two axes."""

from collections.abc import Iterator

from pipeline.report import colours
from pipeline.report.charts.base import Chart, Line, Marker, Point, Stem
from pipeline.report.drawing.marks import marker, stroke
from pipeline.report.drawing.scales import Scale, extent, tick_text
from pipeline.report.drawing.shapes import (
    Circle,
    Drawing,
    Group,
    Look,
    Path,
    Shape,
    Text,
    line,
    rectangle,
    shortened,
    text_width,
)

RIGHT, TOP, BOTTOM = 14.0, 8.0, 36.0
"""From the edges of the sheet to the axes."""
X_TICK_ROOM, WHOLE_TICK_ROOM, Y_TICK_ROOM = 52.0, 30.0, 28.0
HALF_STEP = 0.6
CROWDED_POINTS = 60
SIDE_BY_SIDE = 0.38
"""Between the stems of two kinds at one place, as a share of the way to the next place."""
GUIDE = Look(stroke="#94a3b8", opacity=0.3)
AXIS = Look(stroke="#94a3b8")
LEVEL = Look(stroke=colours.MUTED, width=1.5, dashes=(5, 4))
HALO = Look(stroke=colours.INK, width=2)


def draw_chart(chart: Chart, width: float, height: float) -> Drawing:
    """A chart without its title, which stands beside it where there is room."""
    x, y = _scales(chart, width, height)
    radius = 2.0 if max((len(each.points) for each in chart.lines), default=0) > CROWDED_POINTS \
        else 3.4  # fmt: skip
    shapes: list[Shape] = [
        *_bands(chart, x, y),
        *_axes(chart, x, y, width, height),
        *_levels(chart, x, y),
        *_fronts(chart, x, y),
        *_cursor(x, y),
    ]
    for each in chart.lines:
        shapes += _line(each, x, y)
    for each in chart.lines:
        shapes += [shape for point in each.points for shape in _point(each, point, x, y, radius)]
    shapes += _stems(chart, x, y)
    if chart.lines or chart.stems:
        shapes.append(Group((Circle(0, 0, 7, HALO, {"class": "halo"}),), hidden=True))
    nearest = "x" if chart.bands or chart.stems else "xy"
    return Drawing(width, height, tuple(shapes), {"data-nearest": nearest})


def _scales(chart: Chart, width: float, height: float) -> tuple[Scale, Scale]:
    points = [point for each in chart.lines for point in each.points]
    ys = [value for point in points for value in (point.y, *(point.interval or ()))]
    ys += [value for stem in chart.stems for value in (stem.base, stem.y) if value is not None]
    ys += [level.value for level in chart.levels]
    if chart.y.logarithmic:
        ys = [value for value in ys if value > 0]
    low, high = extent(ys, chart.y.logarithmic)
    y = Scale(low, high, height - BOTTOM, TOP, chart.y.logarithmic)
    longest = max(text_width(tick_text(tick)) for tick in [*_y_ticks(chart, y), 0.0])
    left = max(36.0, longest + 14)
    return Scale(*_x_range(chart, points), left, width - RIGHT, chart.x.logarithmic), y


def _x_range(chart: Chart, points: list[Point]) -> tuple[float, float]:
    xs = [value for point in points for value in (point.x, *(point.reach or ()))] + [
        stem.x for stem in chart.stems
    ]
    ends = [end for band in chart.bands for end in (band.start, band.end)]
    if chart.x.whole:
        return min(xs) - HALF_STEP, max(xs) + HALF_STEP
    # bands say how far the axis goes
    return (min(xs + ends), max(xs + ends)) if ends else extent(xs, chart.x.logarithmic)


def _y_ticks(chart: Chart, y: Scale) -> list[float]:
    return y.ticks(max(2, min(6, int((y.start - y.end) / Y_TICK_ROOM))), chart.y.whole)


def _axes(chart: Chart, x: Scale, y: Scale, width: float, height: float) -> Iterator[Shape]:
    for tick in _y_ticks(chart, y):
        yield line(x.start, y(tick), x.end, y(tick), GUIDE)
        yield Text(x.start - 8, y(tick) + 4, tick_text(tick), colours.MUTED, "end")
    yield from _x_ticks(chart, x, y)
    yield line(x.start, y.start, x.end, y.start, AXIS)
    yield Text((x.start + width) / 2, height - 4, chart.x.title, colours.MUTED, "middle")


def _x_ticks(chart: Chart, x: Scale, y: Scale) -> Iterator[Shape]:
    for place, name in enumerate(chart.x.names):
        room = x(1) - x(0) - 4
        yield Text(x(place), y.start + 16, shortened(name, room), colours.MUTED, "middle")
    if chart.x.names:
        return
    room = WHOLE_TICK_ROOM if chart.x.whole else X_TICK_ROOM
    most = 40 if chart.x.whole else 8
    for tick in x.ticks(max(2, min(most, int((x.end - x.start) / room))), chart.x.whole):
        yield Text(x(tick), y.start + 16, tick_text(tick), colours.MUTED, "middle")


def _bands(chart: Chart, x: Scale, y: Scale) -> Iterator[Shape]:
    for band in chart.bands:
        left, fill = x(band.start), Look(colours.tint(band.colour))
        area = (left, y.end, x(band.end) - left, y.start - y.end)
        yield rectangle(*area, fill, {"class": "band"})


def _levels(chart: Chart, x: Scale, y: Scale) -> Iterator[Shape]:
    for level in chart.levels:
        start = x.start if level.start is None else x(level.start)
        end = x.end if level.end is None else x(level.end)
        yield line(start, y(level.value), end, y(level.value), LEVEL, **{"class": "level"})


def _fronts(chart: Chart, x: Scale, y: Scale) -> Iterator[Shape]:
    look = Look(stroke=colours.INK, width=7, opacity=0.1, round_caps=True)
    for front in chart.fronts:
        places = tuple((x(across), y(up)) for across, up in front)
        yield Path((places,), look, attributes={"class": "front"})


def _cursor(x: Scale, y: Scale) -> Iterator[Shape]:
    """A line that a page moves to where its slider is."""
    if x.logarithmic:
        return
    per_unit = (x.end - x.start) / ((x.high - x.low) or 1)
    data = {
        "class": "cursor",
        "data-origin": f"{x.start - x.low * per_unit:.2f}",
        "data-per-unit": f"{per_unit:.4f}",
    }
    yield Group((line(0, y.end, 0, y.start, Look(stroke=colours.INK, width=1.5)),), data,
                hidden=True)  # fmt: skip


def _line(each: Line, x: Scale, y: Scale) -> Iterator[Shape]:
    colour = each.stroke.colour
    spans = [point for point in each.points if point.interval]
    if each.shaded and spans:
        upper = [(x(p.x), y(_interval(p, y)[1])) for p in each.points]
        lower = [(x(p.x), y(_interval(p, y)[0])) for p in reversed(each.points)]
        yield Path(((*upper, *lower),), Look(colour, opacity=0.14), closed=True)
    elif spans:
        for point in spans:
            low, high = _interval(point, y)
            yield _error_bar(x(point.x), y(low), y(high), colour)
    for point in each.points:
        if point.reach:
            left, right = point.reach
            yield _error_bar(y(point.y), x(left), x(right), colour, sideways=True)
    places = tuple((x(point.x), y(point.y)) for point in each.points)
    yield Path((places,), stroke(each.stroke, 1.9), attributes={"class": "line"})


def _interval(point: Point, y: Scale) -> tuple[float, float]:
    """As much of a point's interval as the axis shows: a logarithmic one has no zero."""
    low, high = point.interval or (point.y, point.y)
    return max(low, y.low), high


def _error_bar(at: float, low: float, high: float, colour: str, sideways: bool = False) -> Path:
    """From ``low`` to ``high`` at one place of the other axis."""
    bars = [((at, low), (at, high)), *(((at - 3, end), (at + 3, end)) for end in (low, high))]
    if sideways:
        bars = [((a[1], a[0]), (b[1], b[0])) for a, b in bars]
    return Path(
        tuple(bars), Look(stroke=colour, width=1.2, opacity=0.5), attributes={"class": "error"}
    )


def _point(each: Line, point: Point, x: Scale, y: Scale, radius: float) -> Iterator[Shape]:
    across, up = x(point.x), y(point.y)
    if point.ringed:
        yield marker(Marker(colours.INK, "ring"), across, up, 8.5, {"class": "ring"})
    data = {
        "class": "mark",
        "data-x": f"{across:.1f}",
        "data-y": f"{up:.1f}",
        "data-tip": point.tip,
    }
    yield marker(point.marker or each.marker, across, up, radius, data)


def _stems(chart: Chart, x: Scale, y: Scale) -> Iterator[Shape]:
    """Stems of different kinds at one place stand side by side."""
    kinds = list(dict.fromkeys(stem.marker.colour for stem in chart.stems))
    step = abs(x(1) - x(0))
    radius = max(1.6, min(4.5, step / (3 + 2 * (len(kinds) - 1))))
    for stem in chart.stems:
        shift = (kinds.index(stem.marker.colour) - (len(kinds) - 1) / 2) * SIDE_BY_SIDE
        yield _stem(stem, x(stem.x + shift), y, radius)


def _stem(stem: Stem, across: float, y: Scale, radius: float) -> Group:
    shapes: list[Shape] = []
    if stem.y is None:
        shape = Marker(stem.marker.colour, "cross")
        shapes.append(marker(shape, across, y.end + radius, radius))
    else:
        up = y(stem.y)
        look = Look(stroke=stem.marker.colour, width=1.6)
        shapes.append(line(across, y(stem.base), across, up, look))
        shape = stem.marker
        if stem.off_scale:
            shape = Marker(shape.colour, "triangle", shape.hollow)
        shapes.append(marker(shape, across, up, radius))
    data = {
        "class": "loss",
        "data-x": f"{across:.1f}",
        "data-y": f"{y.end if stem.y is None else y(stem.y):.1f}",
        "data-tip": stem.tip,
    }
    return Group(tuple(shapes), data)
