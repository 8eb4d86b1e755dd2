"""The comparison as one PNG."""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.report import colours
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.figures import Chart, Line, Point, RemovalMap, published_names
from pipeline.report.picture import DOTS_PER_INCH, STYLE, scale_logarithmically
from pipeline.report.series import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH_INCHES = 16.0
CHART_INCHES, TRADE_OFF_INCHES, MAP_INCHES = 3.0, 3.9, 0.92
LINE_INCHES = 0.24
MOST_ANSWERS = 6
IN_A_ROW = 3
MAPS_IN_A_ROW = 4
WRAP_CHARACTERS = 190
LEGEND_COLUMNS = 5
DASHES: tuple[Any, ...] = ("-", (0, (5, 3)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)))
DASH_NAMES = ("solid", "dashed", "dotted", "dash-dotted")
SHAPES = ("o", "s", "^")


def draw_comparison(comparison: Comparison) -> bytes:
    """The picture, 1600 pixels wide and as high as there is to show."""
    from matplotlib import style

    image = io.BytesIO()
    with style.context(STYLE, after_reset=True):
        _figure(comparison).savefig(image, format="png", dpi=DOTS_PER_INCH)
    return image.getvalue()


def _figure(comparison: Comparison) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The picture has no switch: what can be relative to the dense model is, where that is known.
    shown = [chart for chart in comparison.charts if chart.scale != "absolute"]
    titles = {chart.title for chart in shown}
    shown += [chart for chart in comparison.charts if chart.title not in titles]
    told = _told(comparison)
    legend_rows = math.ceil((len(comparison.groups) + 3) / LEGEND_COLUMNS)
    parts: list[tuple[float, Any]] = [
        (0.95 + LINE_INCHES * (len(told) + legend_rows), (_draw_title, comparison, told))
    ]
    parts += [
        (CHART_INCHES, (_draw_charts, shown[start : start + IN_A_ROW], IN_A_ROW))
        for start in range(0, len(shown), IN_A_ROW)
    ]
    if comparison.trade_offs:
        parts.append((TRADE_OFF_INCHES, (_draw_charts, comparison.trade_offs, 0)))
    if comparison.maps:
        rows = math.ceil(len(comparison.maps) / MAPS_IN_A_ROW)
        parts.append((0.55 + MAP_INCHES * rows, (_draw_maps, comparison.maps)))
    heights = [height for height, _ in parts]
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    rows_of = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (_, (draw, *what)) in zip(rows_of, parts, strict=True):
        draw(part, *what)
    return figure


def _told(comparison: Comparison) -> list[str]:
    lines: list[str] = []
    for answer in comparison.answers[:MOST_ANSWERS]:
        lines += textwrap.wrap(
            f"{answer.question}: {answer.text}", WRAP_CHARACTERS, subsequent_indent="     "
        )
    return lines


def _draw_title(part: "SubFigure", comparison: Comparison, told: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    legend_rows = math.ceil((len(comparison.groups) + 3) / LEGEND_COLUMNS)
    inches = 0.95 + LINE_INCHES * (len(told) + legend_rows)
    texts: list[tuple[float, str, dict[str, Any]]] = [
        (0.28, comparison.name[:90], {"fontsize": 17, "weight": "bold"}),
        (0.62, comparison.about[:130], {"fontsize": 11, "color": colours.MUTED}),
        *((0.95 + LINE_INCHES * row, line, {"fontsize": 10.5}) for row, line in enumerate(told)),
    ]
    for down, text, look in texts:
        part.text(0.012, 1 - down / inches, text, va="center", parse_math=False, **look)
    handles = [
        Line2D([], [], color=_group_colour(place), marker=_shape(place), label=_short(group.label))
        for place, group in enumerate(comparison.groups)
        if group.is_drawn
    ]
    handles.append(
        Line2D(
            [], [], color=colours.MUTED, linestyle="--", marker="D", markerfacecolor="white",
            label="dense model",
        )
    )  # fmt: skip
    handles += [
        Line2D([], [], color=colours.PUBLISHED, linestyle=":",
               marker="X" if "BlockPruner" in name else "D", markerfacecolor="white", label=name)
        for name in published_names(comparison.charts)
    ]  # fmt: skip
    if comparison.trade_offs:
        handles.append(
            Line2D([], [], color=colours.INK, linestyle="", marker="o", markersize=10,
                   markerfacecolor="none", label="on the Pareto front")
        )  # fmt: skip
    legend = part.legend(
        handles=handles, loc="lower left", ncols=LEGEND_COLUMNS, frameon=False,
        bbox_to_anchor=(0.005, -0.02),
    )  # fmt: skip
    for label in legend.get_texts():
        label.set_parse_math(False)


def _short(text: str) -> str:
    return text if len(text) <= 42 else f"{text[:41]}…"  # noqa: PLR2004 - the legend's column


def _group_colour(place: int) -> str:
    return colours.GROUPS[place % len(colours.GROUPS)]


def _shape(place: int) -> str:
    return SHAPES[place // len(colours.GROUPS) % len(SHAPES)]


def _draw_charts(part: "SubFigure", shown: Sequence[Chart], columns: int) -> None:
    axes = part.subplots(1, columns or len(shown), squeeze=False)[0]
    for ax, chart in zip(axes, shown, strict=False):
        _draw_chart(ax, chart)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()


def _draw_chart(ax: "Axes", chart: Chart) -> None:
    if chart.level is not None:
        ax.axhline(chart.level, color=colours.MUTED, linestyle="--", linewidth=1.1, zorder=1)
    for front in chart.fronts:
        ax.plot(
            [p.x for p in front], [p.y for p in front], color=colours.INK, alpha=0.1, linewidth=7,
            solid_capstyle="round", zorder=1,
        )  # fmt: skip
    for line in chart.lines:
        _draw_line(ax, line)
    if chart.logarithmic:
        scale_logarithmically(ax)
    ax.set(title=chart.title, ylabel=chart.y_axis)
    ax.set_xlabel("\n".join([chart.x_axis, *_variants(chart)]), parse_math=False)
    if not chart.fronts:
        ax.margins(x=0.03)
    ax.grid(axis="y", color=colours.GRID)
    ax.set_axisbelow(True)


def _variants(chart: Chart) -> list[str]:
    if len(chart.protocols) < 2:  # noqa: PLR2004 - one way needs no telling apart
        return []
    return [
        f"{DASH_NAMES[place % len(DASHES)]}: {protocol[:70]}"
        for place, protocol in enumerate(chart.protocols)
    ]


def _draw_line(ax: "Axes", line: Line) -> None:
    is_ours = line.group is not None
    colour = _group_colour(line.group) if line.group is not None else colours.PUBLISHED
    dashes = DASHES[line.variant % len(DASHES)] if is_ours else ":"
    xs, ys = [p.x for p in line.points], [p.y for p in line.points]
    ax.plot(xs, ys, color=colour, linestyle=dashes, linewidth=1.6, zorder=2)
    for point in line.points:
        _draw_point(ax, line, point, colour)


def _marker(line: Line, point: Point) -> str:
    if line.group is None:
        return "X" if "BlockPruner" in line.name else "D"
    return "D" if point.is_dense else _shape(line.group)


def _draw_point(ax: "Axes", line: Line, point: Point, colour: str) -> None:
    if point.error is not None:
        ax.errorbar(
            point.x, point.y, point.error, color=colour, alpha=0.45, capsize=2.5, linewidth=1.1,
            zorder=2,
        )  # fmt: skip
    if point.is_on_front:
        ax.plot(
            point.x, point.y, "o", markersize=11.5, markerfacecolor="none",
            markeredgecolor=colours.INK, markeredgewidth=1.4, zorder=4,
        )  # fmt: skip
    if point.is_dense:
        colour = colours.MUTED
    is_hollow = point.is_dense or line.group is None or line.variant % 2 == 1
    ax.plot(
        point.x,
        point.y,
        _marker(line, point),
        markersize=5.5,
        markerfacecolor="white" if is_hollow else colour,
        markeredgecolor=colour if is_hollow else "white",
        markeredgewidth=1.3 if is_hollow else 0.7,
        zorder=5,
        clip_on=False,
    )


def _draw_maps(part: "SubFigure", maps: Sequence[RemovalMap]) -> None:
    part.suptitle(
        "What is left of every layer (upper row attention, lower row MLP; grey: kept, "
        "solid blue: the whole block is gone, tinted: channels or heads are gone)",
        x=0.012, ha="left", fontsize=11, weight="bold",
    )  # fmt: skip
    columns = min(MAPS_IN_A_ROW, len(maps))
    rows = math.ceil(len(maps) / columns)
    axes = list(part.subplots(rows, columns, squeeze=False).flat)
    for ax, each in zip(axes, maps, strict=False):
        _draw_map(ax, each)
    for ax in axes[len(maps) :]:
        ax.set_axis_off()


def _draw_map(ax: "Axes", each: RemovalMap) -> None:
    for cell in each.cells:
        _draw_cell(ax, cell)
    ax.set(xlim=(-0.5, each.layers - 0.5), ylim=(-0.05, 2.05))
    ax.set_axis_off()
    title = f"{_short(each.label)}  {each.note}"
    ax.set_title(
        title, fontsize=9, weight="normal", color=_group_colour(each.group), parse_math=False
    )


def _draw_cell(ax: "Axes", cell: Cell) -> None:
    from matplotlib.patches import Rectangle

    left, bottom, width, height = (
        cell.layer - 0.44,
        1.05 if cell.kind == "attn" else 0.0,
        0.88,
        0.95,
    )
    lost = "heads" if cell.kind == "attn" else "mlp_channels"
    if cell.removed:
        ax.add_patch(
            Rectangle((left, bottom), width, height, color=colours.DIMENSIONS["blocks"], lw=0)
        )
        return
    if cell.kept_share < 1:
        ax.add_patch(
            Rectangle(
                (left, bottom), width, height, facecolor=colours.TINTS[lost],
                edgecolor=colours.DIMENSIONS[lost], linewidth=0.7,
            )
        )  # fmt: skip
    ax.add_patch(
        Rectangle((left, bottom), width, height * cell.kept_share, color=colours.KEPT, lw=0)
    )
