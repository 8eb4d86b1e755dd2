"""The run as one PNG."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.report import colours
from pipeline.report.data import RunReport, Sensitivity, UnitLoss, finite
from pipeline.report.headline import headlines
from pipeline.report.series import (
    Band,
    Cell,
    Chart,
    Line,
    bands,
    cells,
    charts,
    is_taken,
    outlier_limit,
    sensitivity_base,
    sensitivity_note,
)
from pipeline.report.wording import DIMENSION_NAMES, KIND_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH_INCHES = 16.0
DOTS_PER_INCH = 100
TITLE_INCHES, CURVES_INCHES, MAP_INCHES, SENSITIVITY_INCHES = 0.95, 3.3, 2.75, 3.0
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": colours.INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": colours.INK,
    "xtick.color": colours.MUTED,
    "ytick.color": colours.MUTED,
    "hatch.linewidth": 0.6,
}
MARKERS = {"prefill": "o", "decode": "s"}
UNIT_MARKERS = {"attn": "o", "mlp": "s", "attn_width": "o", "mlp_width": "s"}
CROWDED_POINTS, LONG_RANGE = 50, 1000
LABELLED_LAYERS = 40
"""The cells of a larger model are too narrow for percents."""
SHARE_WITH_TEXT = 0.25
"""A block of which less is left has its percents above what is left."""


def write_picture(report: RunReport, path: Path) -> None:
    """Draw ``report`` into ``path``, 1600 x 1000 pixels; less high with less to show."""
    from matplotlib import style

    image = io.BytesIO()
    # A user's own matplotlibrc must not change what a report looks like.
    with style.context(STYLE, after_reset=True):
        _figure(report).savefig(image, format="png", dpi=DOTS_PER_INCH)
    files.replace(path, image.getvalue())


def _figure(report: RunReport) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    curves, losses = charts(report), _sensitivities(report)
    heights = [TITLE_INCHES]
    heights += [CURVES_INCHES] if curves else []
    heights += [MAP_INCHES]
    heights += [SENSITIVITY_INCHES] if losses else []
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    rows = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    _draw_title(rows.pop(0), report)
    if curves:
        _draw_curves(rows.pop(0), curves, bands(report))
    _draw_map(rows.pop(0).subplots(), report)
    if losses:
        _draw_sensitivities(rows.pop(0), report, losses)
    return figure


def _draw_title(part: "SubFigure", report: RunReport) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    about = "  ·  ".join(filter(None, [report.model_name, report.device]))
    told = [
        f"{h.title.lower()}: {' '.join(filter(None, [h.value, h.what]))}" for h in headlines(report)
    ]
    for height, text, look in (
        (0.80, _shortened(report.name, 80), {"fontsize": 17, "weight": "bold"}),
        (0.44, _shortened(about, 90), {"fontsize": 11, "color": colours.MUTED}),
        (0.13, "     ".join(told), {"fontsize": 12}),
    ):
        # A name may hold dollar signs, which would set it as mathematics.
        part.text(0.012, height, text, va="center", parse_math=False, **look)
    patches: list[Patch | Line2D] = [
        Patch(facecolor=colours.TINTS[name], edgecolor=colours.DIMENSIONS[name], label=label)
        for name, label in DIMENSION_NAMES.items()
    ]
    patches.append(Line2D([], [], color=colours.MUTED, linestyle="--", label="dense model"))
    part.legend(
        handles=patches, loc="upper right", ncols=4, frameon=False, bbox_to_anchor=(0.995, 0.72)
    )


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def _draw_curves(part: "SubFigure", curves: list[Chart], stretches: list[Band]) -> None:
    axes = part.subplots(1, len(curves), squeeze=False)[0]
    for ax, chart in zip(axes, curves, strict=True):
        _draw_chart(ax, chart, stretches)


def _draw_chart(ax: "Axes", chart: Chart, stretches: list[Band]) -> None:
    for band in stretches:
        tint = colours.TINTS[band.dimension]
        ax.axvspan(band.start_percent, band.end_percent, color=tint, linewidth=0, zorder=0)
    for level in chart.baselines:
        ends = [level.start_percent, level.end_percent]
        ax.plot(ends, [level.value] * 2, color=colours.MUTED, linestyle="--", linewidth=1.2)
    for line in chart.lines:
        _draw_line(ax, line)
    if chart.logarithmic:
        scale_logarithmically(ax)
    ax.set(title=chart.title, xlabel="parameters removed (%)", ylabel=chart.axis)
    ax.margins(x=0.02)
    ax.grid(axis="y", color="white", linewidth=1.0)
    ax.set_axisbelow(True)
    if len({line.mark for line in chart.lines}) > 1:
        ax.legend(frameon=False, loc="best")


def scale_logarithmically(ax: "Axes") -> None:
    """With numbers as people write them, and enough of them where the range is short."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > LONG_RANGE else (1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:,.10g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_line(ax: "Axes", line: Line) -> None:
    colour = colours.MARKS[line.mark]
    ratios = [point.ratio_percent for point in line.points]
    values = [point.value for point in line.points]
    if any(point.error is not None for point in line.points):
        errors = [point.error or 0.0 for point in line.points]
        low = [value - error for value, error in zip(values, errors, strict=True)]
        high = [value + error for value, error in zip(values, errors, strict=True)]
        ax.fill_between(ratios, low, high, color=colour, alpha=0.15, linewidth=0)
    crowded = len(values) > CROWDED_POINTS
    ax.plot(
        ratios,
        values,
        color=colour,
        linewidth=1.6,
        linestyle=":" if line.mark == "decode" else "-",
        marker=MARKERS.get(line.mark, "o"),
        markersize=2.5 if crowded else 4.5,
        markeredgecolor=colour if crowded else "white",
        markeredgewidth=0.6,
        label=line.name,
    )


def _draw_map(ax: "Axes", report: RunReport) -> None:
    """Two rows of tanks, filled as far as the block is left."""
    layers = len(report.shape.layers)
    text_size, percents = min(10.0, max(6.5, 260 / layers)), layers <= LABELLED_LAYERS
    for cell in cells(report):
        _draw_cell(ax, cell, 1.0 if cell.kind == "attn" else -0.06, text_size, percents)
    ax.set(xlim=(-0.6, layers - 0.4), ylim=(-0.1, 1.96))
    ax.set_yticks([0.39, 1.45], ["MLP", "attention"], fontsize=11, color=colours.INK)
    ax.set_xticks(range(0, layers, max(1, layers // LABELLED_LAYERS)))
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title("What is left of every layer")
    ax.set_xlabel(
        "layer, from input to output.  Filled: kept.  Crossed: the whole block is gone, with the "
        "number of the step that took it.  %: share of the channels that is left"
    )


def _draw_cell(ax: "Axes", cell: Cell, bottom: float, text_size: float, percents: bool) -> None:
    from matplotlib.patches import Rectangle

    height, width = 0.9, 0.84
    left = cell.layer - width / 2
    lost = _lost_in(cell)
    if lost:
        edge, tint = colours.DIMENSIONS[lost], colours.TINTS[lost]
        empty = Rectangle(
            (left, bottom), width, height, facecolor=tint, edgecolor=edge, hatch="///"
        )
        ax.add_patch(empty)
    kept = height * cell.kept_share
    ax.add_patch(Rectangle((left, bottom), width, kept, facecolor=colours.KEPT, linewidth=0))
    if cell.removed:
        across, upwards = [left, left + width], [bottom, bottom + height]
        for ends in (upwards, upwards[::-1]):
            cross = ax.plot(across, ends, color=colours.DIMENSIONS["blocks"], linewidth=1.6)
            cross[0].set_solid_capstyle("butt")
    text = _cell_text(cell, percents)
    if text:
        within = not cell.removed and cell.kept_share >= SHARE_WITH_TEXT
        middle = height / 2 if cell.removed else kept / 2 if within else kept + height * 0.15
        ax.text(
            cell.layer,
            bottom + middle,
            text,
            ha="center",
            va="center",
            fontsize=text_size,
            weight="bold",
            color="white" if within else colours.INK,
            bbox=None if within else {"facecolor": "white", "edgecolor": "none", "pad": 1.2},
        )


def _lost_in(cell: Cell) -> str | None:
    """The dimension that took something of a block."""
    if cell.removed:
        return "blocks"
    if cell.width == cell.dense_width:
        return None
    return "heads" if cell.kind == "attn" else "mlp_channels"


def _cell_text(cell: Cell, percents: bool) -> str:
    if cell.removed:
        return "" if cell.step is None else f"{cell.step}"
    if cell.kept_share == 1 or not percents:
        return ""
    # One that lost something is never said to be whole, nor one that is left to be gone.
    return f"{min(99, max(1, round(cell.kept_share * 100)))}%"


def _sensitivities(report: RunReport) -> list[tuple[str, Sensitivity]]:
    return [
        (dimension, entry)
        for dimension in DIMENSION_NAMES
        if (entry := report.sensitivity.get(dimension)) is not None and entry.losses
    ]


def _draw_sensitivities(
    part: "SubFigure", report: RunReport, entries: list[tuple[str, Sensitivity]]
) -> None:
    part.suptitle(
        "Sensitivity: calibration perplexity of the dense model without one unit "
        "(hollow: the run took from it)",
        x=0.012,
        ha="left",
        fontsize=11,
        weight="bold",
    )
    ratios = [2 if dimension == "blocks" else 1.3 for dimension, _ in entries]
    axes = part.subplots(1, len(entries), squeeze=False, width_ratios=ratios)[0]
    for ax, (dimension, entry) in zip(axes, entries, strict=True):
        limit = outlier_limit(entry)
        for unit in dict.fromkeys(loss.unit for loss in entry.losses):
            losses = [loss for loss in entry.losses if loss.unit == unit]
            _draw_losses(ax, report, losses, sensitivity_base(entry), limit)
        _finish_sensitivity(ax, dimension, entry, limit)


def _draw_losses(
    ax: "Axes", report: RunReport, losses: list[UnitLoss], base: float, limit: float | None
) -> None:
    """One unit's stems over the layers."""
    unit = losses[0].unit
    colour, size = colours.UNITS[unit], 6 if len(report.shape.layers) <= LABELLED_LAYERS else 3.5
    shift = {"attn": -0.18, "mlp": 0.18}.get(unit, 0.0)
    ax.plot([], [], UNIT_MARKERS[unit], color=colour, label=KIND_NAMES.get(unit))
    for loss in losses:
        place, ppl = loss.layer + shift, finite(loss.ppl)
        fill = "white" if is_taken(report, loss) else colour
        look: dict[str, Any] = {"color": colour, "markersize": size, "markerfacecolor": fill}
        if ppl is None:
            ax.plot(place, 0.96, "x", transform=ax.get_xaxis_transform(), **look)
        elif limit is not None and ppl > limit:
            ax.vlines(place, base, limit, color=colour, linewidth=1.3)
            ax.plot(place, limit, "^", **look)
        else:
            ax.vlines(place, base, ppl, color=colour, linewidth=1.3)
            ax.plot(place, ppl, UNIT_MARKERS[unit], **look)


def _finish_sensitivity(
    ax: "Axes", dimension: str, entry: Sensitivity, limit: float | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    if finite(entry.dense_ppl) is not None:
        ax.axhline(sensitivity_base(entry), color=colours.MUTED, linestyle="--", linewidth=1.2)
    ax.set(title=DIMENSION_NAMES[dimension], ylabel="perplexity")
    ax.set_xlabel("\n".join(filter(None, ["layer", sensitivity_note(entry, limit)])))
    ax.grid(axis="y", color=colours.GRID)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if dimension == "blocks":
        ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
