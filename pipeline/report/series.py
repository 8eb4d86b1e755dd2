"""What is drawn: the curves over the ratio and the removal map. Picture and page draw the same."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from pipeline.measure.record import Latency, Record
from pipeline.pruning.shape import BLOCK_KINDS, BlockKind
from pipeline.pruning.state import Dimension, PruningState
from pipeline.report.comparison import accuracy_text
from pipeline.report.data import RunReport, Sensitivity, UnitLoss, finite, mean_accuracy
from pipeline.report.wording import KIND_NAMES, TIMES, number, relative_change

LOG_FROM = 20.0
"""Values that differ by this factor or more are drawn on a logarithmic axis."""

ORDINARY_SHARE, ORDINARY_SPREAD = 0.85, 1.5
"""Sensitivities up to this quantile are ordinary; the axis ends at this multiple of the highest."""

NAMED_OUTLIERS = 2

Mark = Literal["importance", "perplexity", "accuracy", "prefill", "decode"]
Kind = Literal["attn", "mlp"]


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a curve."""

    step: int | None
    """None for the dense model."""
    dimension: Dimension | None
    ratio_percent: float
    value: float
    error: float | None
    text: str
    """The value as a person reads it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve."""

    mark: Mark
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the dense model has, over a stretch of the ratio."""

    start_percent: float
    end_percent: float
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over the ratio that share an axis."""

    title: str
    axis: str
    lines: tuple[Line, ...]
    baselines: tuple[Baseline, ...]
    logarithmic: bool


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of the ratio that was pruned in one dimension."""

    dimension: Dimension
    start_percent: float
    end_percent: float
    first_step: int
    last_step: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One block of the model as the run left it."""

    kind: Kind
    layer: int
    width: int
    dense_width: int
    removed: bool
    step: int | None
    """The step at which the block went; of one that is left, the last that took channels."""

    @property
    def kept_share(self) -> float:
        """Share of the channels that is left."""
        return 0.0 if self.removed else self.width / self.dense_width


def bands(report: RunReport) -> list[Band]:
    """The dimensions' stretches in the order of the steps."""
    found: list[Band] = []
    for dimension, group in groupby(report.steps, key=lambda step: step.dimension):
        steps = list(group)
        start = found[-1].end_percent if found else 0.0
        end = steps[-1].ratio_percent
        found.append(Band(dimension, start, end, steps[0].step, steps[-1].step))
    return found


def charts(report: RunReport) -> list[Chart]:
    """The charts that there is data for."""
    drawn = [_importance(report), _perplexity(report), _accuracy(report), _latency(report)]
    return [chart for chart in drawn if chart is not None]


def cells(report: RunReport) -> list[Cell]:
    """Attention and MLP of every layer, from the input on."""
    return cells_of(report.state, {(step.unit, step.layer): step.step for step in report.steps})


def cells_of(state: PruningState, taken: Mapping[tuple[str, int], int] | None = None) -> list[Cell]:
    """Attention and MLP of every layer. ``taken`` says at which step a layer last lost a unit."""
    blocks = [
        (layer, kind, shape)
        for layer, shapes in enumerate(state.shape.layers)
        for kind in BLOCK_KINDS
        if (shape := shapes.block(kind))
    ]
    found = []
    for layer, kind, shape in blocks:
        gone = layer not in state.left(kind)
        step = (taken or {}).get((kind if gone else f"{kind}_width", layer))
        found.append(Cell(kind, layer, state.widths(kind)[layer], shape.width, gone, step))
    return found


def outlier_limit(sensitivity: Sensitivity) -> float | None:
    """Where to end the axis: a few units may hurt so much that the others would all look alike.

    None where all fit.
    """
    base, known = sensitivity_base(sensitivity), _known(sensitivity)
    if not known:
        return None
    room = (known[int(len(known) * ORDINARY_SHARE)] - base) * ORDINARY_SPREAD
    return base + room if room > 0 and known[-1] > base + 1.5 * room else None


def sensitivity_base(sensitivity: Sensitivity) -> float:
    """What losses are compared with: the dense model's perplexity; without one, the lowest."""
    dense = finite(sensitivity.dense_ppl)
    return min(_known(sensitivity), default=0.0) if dense is None else dense


def _known(sensitivity: Sensitivity) -> list[float]:
    return sorted(ppl for loss in sensitivity.losses if (ppl := finite(loss.ppl)) is not None)


def sensitivity_note(sensitivity: Sensitivity, limit: float | None) -> str:
    """What an axis that ends at ``limit`` does not show."""
    notes = []
    beyond = [
        (ppl, loss)
        for loss in sensitivity.losses
        if limit is not None and (ppl := finite(loss.ppl)) is not None and ppl > limit
    ]
    if beyond:
        worst = sorted(beyond, key=lambda pair: -pair[0])
        named = [f"{_unit_name(loss)}: {number(ppl)}" for ppl, loss in worst[:NAMED_OUTLIERS]]
        more = f", {len(beyond) - len(named)} more" if len(beyond) > len(named) else ""
        notes.append(f"▲ off the scale: {', '.join(named)}{more}")
    if any(finite(loss.ppl) is None for loss in sensitivity.losses):
        notes.append(f"{TIMES} no number")
    return "   ".join(notes)


def _unit_name(loss: UnitLoss) -> str:
    return f"{KIND_NAMES.get(loss.unit, 'layer')} {loss.layer}"


def is_taken(report: RunReport, loss: UnitLoss) -> bool:
    """Whether the run removed the block or took channels of it."""
    state = report.state
    kind: BlockKind = "attn" if loss.unit.startswith("attn") else "mlp"
    if loss.unit == kind:
        return loss.layer not in state.left(kind)
    return state.widths(kind)[loss.layer] < state.shape.widths(kind)[loss.layer]


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values need a logarithmic axis to be told apart."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= LOG_FROM


def _importance(report: RunReport) -> Chart | None:
    if not report.steps:
        return None
    first = report.steps[0].dimension
    states = [
        (None, first, 0.0, report.dense_importance_of(first)),
        *((s.step, s.dimension, s.ratio_percent, finite(s.importance)) for s in report.steps),
    ]
    points = tuple(
        Point(step, dimension, ratio, value, None, number(value, 3))
        for step, dimension, ratio, value in states
        if value is not None
    )
    dense = tuple(
        Baseline(band.start_percent, band.end_percent, value)
        for band in bands(report)
        if (value := report.dense_importance_of(band.dimension)) is not None
    )
    lines = tuple(
        Line("importance", "after each step", tuple(group))
        for _, group in groupby(points, key=lambda point: _windows(report, point.dimension))
    )
    return _chart("Calibration perplexity", "perplexity", lines, dense)


def _windows(report: RunReport, dimension: Dimension | None) -> float | str | None:
    """Stands for the calibration windows of a dimension: no curve joins values on other ones.

    Equal perplexities of the dense model come from equal windows.
    """
    level = report.dense_importance_of(dimension) if dimension else None
    return dimension if level is None else level


def _perplexity(report: RunReport) -> Chart | None:
    points = tuple(
        Point(step, dimension, ratio, value, None, number(value, 3))
        for step, dimension, ratio, record in _measured(report)
        if (value := finite(record.ppl)) is not None
    )
    line = Line("perplexity", "held-out text", points)
    return _chart("Held-out perplexity", "perplexity", (line,), _dense_level(points))


def _accuracy(report: RunReport) -> Chart | None:
    points = tuple(
        Point(
            step,
            dimension,
            ratio,
            accuracy[0] * 100,
            None if accuracy[1] is None else accuracy[1] * 100,
            accuracy_text(accuracy),
        )
        for step, dimension, ratio, record in _measured(report)
        if (accuracy := mean_accuracy(record.tasks))
    )
    line = Line("accuracy", "mean of the tasks", points)
    return _chart("Accuracy", "percent, ± standard error", (line,), _dense_level(points))


def _latency(report: RunReport) -> Chart | None:
    base = report.dense.latency if report.dense else None
    lines = tuple(
        line
        for line in (
            _latency_line(report, "prefill", lambda latency: latency.prefill.median_ms, base),
            _latency_line(report, "decode", lambda latency: latency.decode.median_ms, base),
        )
        if line.points
    )
    axis = "percent of the dense model's" if base else "ms"
    dense = _dense_level(lines[0].points) if lines and base else ()
    return _chart("Latency", axis, lines, dense)


def _latency_line(
    report: RunReport,
    mark: Mark,
    median_ms: Callable[[Latency], float],
    base: Latency | None,
) -> Line:
    """Relative to ``base``; in ms without one."""
    points = []
    for step, dimension, ratio, record in _measured(report):
        if record.latency is None:
            continue
        now_ms = median_ms(record.latency)
        value, text = now_ms, f"{number(now_ms)} ms"
        if base is not None:
            value = now_ms / median_ms(base) * 100 if median_ms(base) > 0 else math.nan
        if base is not None and step is not None:
            text += f" ({relative_change(median_ms(base), now_ms)})"
        if finite(value) is not None:
            points.append(Point(step, dimension, ratio, value, None, text))
    return Line(mark, mark, tuple(points))


def _measured(report: RunReport) -> Iterator[tuple[int | None, Dimension | None, float, Record]]:
    """Step, dimension, ratio and record of every state that was measured, dense first."""
    if report.dense:
        yield None, None, 0.0, report.dense
    for step in report.steps:
        if step.record:
            yield step.step, step.dimension, step.ratio_percent, step.record
    if report.pruned and report.steps and report.steps[-1].record is None:
        last = report.steps[-1]
        yield last.step, last.dimension, last.ratio_percent, report.pruned


def _dense_level(points: Sequence[Point]) -> tuple[Baseline, ...]:
    """The dense model's value along the whole axis, where it was measured."""
    if not points or points[0].step is not None:
        return ()
    return (Baseline(0.0, points[-1].ratio_percent, points[0].value),)


def _chart(
    title: str, axis: str, lines: tuple[Line, ...], baselines: tuple[Baseline, ...]
) -> Chart | None:
    if sum(len(line.points) for line in lines) < len(lines) + 1:  # one point is no curve
        return None
    values = [point.value for line in lines for point in line.points]
    values += [baseline.value for baseline in baselines]
    return Chart(title, axis, lines, baselines, is_logarithmic(values))
