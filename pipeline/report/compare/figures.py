"""What is drawn of runs side by side: picture and page draw the same lines and points."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.measure.record import Latency
from pipeline.report.compare.groups import Group, groups
from pipeline.report.compare.published import (
    Published,
    PublishedPoint,
    measures_accuracy_alike,
    measures_ppl_alike,
)
from pipeline.report.compare.records import ComparedRun, Measured, Value
from pipeline.report.comparison import BYTES_PER_MB
from pipeline.report.data import finite
from pipeline.report.series import Cell, cells_of, is_logarithmic
from pipeline.report.wording import TIMES, number

PROTOCOLS = "; "
"""Between how time and how quality were measured."""
Scale = Literal["relative", "absolute", "both"]


@dataclass(frozen=True, slots=True)
class Point:
    """One run, the dense model, or a published result."""

    x: float
    y: float
    error: float | None
    text: str
    """Everything to say when a person points at it."""
    is_dense: bool = False
    is_on_front: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one group that were measured alike."""

    group: int | None
    """Its place among the groups; None for published results."""
    variant: int
    """Tells lines of one group apart that must not be joined: another device or protocol."""
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines that share axes."""

    title: str
    x_axis: str
    y_axis: str
    lines: tuple[Line, ...]
    level: float | None
    """The dense model's value, where all lines start from the same one."""
    logarithmic: bool
    scale: Scale = "both"
    """Whether this shows percent of the dense model's, or plain values, or there is no choice."""
    protocols: tuple[str, ...] = ()
    """How values were measured, by a line's variant."""
    fronts: tuple[tuple[Point, ...], ...] = ()
    """The Pareto front of each device, from fast to accurate."""


@dataclass(frozen=True, slots=True)
class RemovalMap:
    """What one run left of every layer."""

    group: int
    label: str
    run: str
    note: str
    """How far it came, where it is not done."""
    layers: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured of a model, in numbers for an axis."""

    title: str
    axis: str
    unit: str
    of: Callable[[ComparedRun, bool], Value | None]
    """Of the pruned model (true) or the dense one."""
    has_percent: bool = False
    """Whether it is shown relative to the dense model, too."""


def _latency_value(of: Callable[[Latency], float]) -> Callable[[ComparedRun, bool], Value | None]:
    def value(run: ComparedRun, pruned: bool) -> Value | None:
        side = run.pruned if pruned else run.dense
        if side.latency is None or finite(found := of(side.latency)) is None:
            return None
        return Value(found, None, latency_protocol(side, side.latency))

    return value


def latency_protocol(side: Measured, latency: Latency) -> str:
    """Device, batch and lengths: what must be equal for times to be compared."""
    return (
        f"{side.device or 'unknown device'}, {latency.batch} {TIMES} {latency.prompt_tokens} "
        f"+ {latency.output_tokens} tokens"
    )


def _memory_value(of: Callable[[Measured], float | None]) -> Callable[..., Value | None]:
    def value(run: ComparedRun, pruned: bool) -> Value | None:
        side = run.pruned if pruned else run.dense
        found = of(side) if side.memory else None
        return None if found is None else Value(found, None, side.device or "unknown device")

    return value


def _peak_mb(side: Measured) -> float | None:
    peak = side.memory.peak if side.memory else None
    return peak / BYTES_PER_MB if peak else None


def _cache_bytes(side: Measured) -> float | None:
    return side.memory.kv_cache_per_token if side.memory else None


ACCURACY = Quantity("Accuracy", "percent, ± standard error", "%", lambda r, p: r.accuracy(p))
PERPLEXITY = Quantity("Held-out perplexity", "perplexity", "", lambda r, p: r.perplexity(p))
PREFILL = Quantity(
    "Prefill speed", "tokens/s", "tokens/s", _latency_value(lambda x: x.prefill_tokens_per_s), True
)
DECODE = Quantity(
    "Decode speed", "tokens/s", "tokens/s", _latency_value(lambda x: x.decode_tokens_per_s), True
)
PEAK = Quantity("Peak memory", "MB", "MB", _memory_value(_peak_mb), True)
CACHE = Quantity(
    "KV cache", "bytes per token", "bytes per token", _memory_value(_cache_bytes), True
)
PREFILL_MS = Quantity("prefill", "ms", "ms", _latency_value(lambda x: x.prefill.median_ms))
DECODE_MS = Quantity("decode", "ms per token", "ms", _latency_value(lambda x: x.decode.median_ms))
QUANTITIES = (ACCURACY, PERPLEXITY, PREFILL, DECODE, PEAK, CACHE)


def percent_of_dense(quantity: Quantity, run: ComparedRun) -> Value | None:
    """The pruned model's value in percent of the dense one's, measured alike."""
    before, after = quantity.of(run, False), quantity.of(run, True)
    if not before or not after or before.protocol != after.protocol or before.value <= 0:
        return None
    return Value(after.value / before.value * 100, None, after.protocol)


def charts(runs: Sequence[ComparedRun], published: Published) -> list[Chart]:
    """Every quantity against the removed ratio; those with two scales come twice."""
    known = groups(runs)
    drawn: list[Chart | None] = []
    for quantity in QUANTITIES:
        paper = _published_line(quantity, runs, published)
        if quantity.has_percent:
            drawn.append(_over_ratio(quantity, known, "relative", None))
            drawn.append(_over_ratio(quantity, known, "absolute", None))
        else:
            drawn.append(_over_ratio(quantity, known, "both", paper))
    return [chart for chart in drawn if chart is not None]


def _over_ratio(
    quantity: Quantity, known: Sequence[Group], scale: Scale, paper: list[Line] | None
) -> Chart | None:
    variants: dict[str, int] = {}
    lines = [
        line
        for place, group in enumerate(known)
        for line in _lines(quantity, place, group, scale, variants)
    ]
    if not lines:
        return None
    lines += paper or []
    levels = {p.y for line in lines if line.group is not None for p in line.points if p.is_dense}
    values = [point.y for line in lines for point in line.points]
    return Chart(
        quantity.title,
        "parameters removed (%)",
        "percent of the dense model's" if scale == "relative" else quantity.axis,
        tuple(lines),
        levels.pop() if len(levels) == 1 else None,
        is_logarithmic(values),
        scale,
        tuple(variants),
    )


def _lines(
    quantity: Quantity, place: int, group: Group, scale: Scale, variants: dict[str, int]
) -> list[Line]:
    """A line for each way in which the group's runs were measured, the dense model first.

    ``variants`` numbers the ways that the chart has, and gets those that are new.
    """
    found: dict[str, list[Point]] = {}
    for run in group.runs:
        plain = quantity.of(run, True)
        value = percent_of_dense(quantity, run) if scale == "relative" else plain
        if not run.is_done or value is None or plain is None or run.removed_percent is None:
            continue
        points = found.setdefault(value.protocol, _dense_start(quantity, run, scale))
        text = _point_text(group, run, quantity, plain, percent_of_dense(quantity, run))
        points.append(Point(run.removed_percent, value.value, value.stderr, text))
    return [
        Line(place, variants.setdefault(protocol, len(variants)), group.label, tuple(points))
        for protocol, points in found.items()
    ]


def _dense_start(quantity: Quantity, run: ComparedRun, scale: Scale) -> list[Point]:
    before, after = quantity.of(run, False), quantity.of(run, True)
    if before is None or after is None or before.protocol != after.protocol:
        return []
    text = f"dense {run.model_name}: {value_text(before, quantity.unit)}\n{before.protocol}"
    value = 100.0 if scale == "relative" else before.value
    error = None if scale == "relative" else before.stderr
    return [Point(0.0, value, error, text, is_dense=True)]


def _point_text(
    group: Group, run: ComparedRun, quantity: Quantity, value: Value, percent: Value | None
) -> str:
    share = f", {percent.value:.1f} % of dense" if percent and quantity.has_percent else ""
    return "\n".join([
        f"{group.label}, {run.removed_percent:.1f} % removed",
        f"{quantity.title.lower()} {value_text(value, quantity.unit)}{share}",
        value.protocol,
        run.name,
    ])  # fmt: skip


def value_text(value: Value | None, unit: str = "", digits: int = 2) -> str:
    """With its standard error where there is one."""
    if value is None:
        return number(None)
    if value.stderr is not None:
        return f"{value.value:.1f} ± {value.stderr:.1f} {unit}".strip()
    if unit == "%":
        return f"{value.value:.1f} %"
    return f"{number(value.value, digits)} {unit}".strip()


def _published_line(
    quantity: Quantity, runs: Sequence[ComparedRun], published: Published
) -> list[Line]:
    """The paper's points, where a run of ours measured the same thing."""
    alike = {ACCURACY.title: measures_accuracy_alike, PERPLEXITY.title: measures_ppl_alike}
    measures = alike.get(quantity.title)
    if measures is None or not any(run.is_done and measures(run) for run in runs):
        return []
    lines: dict[tuple[str, str], list[Point]] = {}
    for point in published.points:
        # the paper's dense model is where its own curve starts
        method = "MultiPruner" if point.method == "dense" else point.method
        points = lines.setdefault((point.model, method), [])
        value = _published_value(quantity, point)
        text = f"published: {point.model}, {point.method} at {point.ratio_percent:g} %\n{value:.2f}"
        points.append(Point(point.removed_percent, value, None, text))
    return [
        Line(None, 0, f"published: {method}", tuple(points))
        for (_, method), points in lines.items()
    ]


def _published_value(quantity: Quantity, point: PublishedPoint) -> float:
    is_accuracy = quantity is ACCURACY
    return point.average_accuracy_percent if is_accuracy else point.wikitext2_ppl


def trade_offs(runs: Sequence[ComparedRun]) -> list[Chart]:
    """Quality against measured latency, with the Pareto front of every device.

    Quality is accuracy; perplexity where no run has an accuracy.
    """
    has_accuracy = any(run.is_done and run.accuracy() for run in runs)
    quality = ACCURACY if has_accuracy else PERPLEXITY
    found = [_trade_off(quality, times, runs) for times in (PREFILL_MS, DECODE_MS)]
    return [chart for chart in found if chart is not None]


def _trade_off(quality: Quantity, times: Quantity, runs: Sequence[ComparedRun]) -> Chart | None:
    lines: list[Line] = []
    by_protocol: dict[str, list[Point]] = {}
    variants: dict[str, int] = {}
    for place, group in enumerate(groups(runs)):
        for protocol, points in _pairs(quality, times, group).items():
            variant = variants.setdefault(protocol, len(variants))
            lines.append(Line(place, variant, group.label, tuple(points)))
            by_protocol.setdefault(protocol, []).extend(points)
    if not lines:
        return None
    upwards = quality is ACCURACY
    fronts = tuple(pareto_front(points, upwards) for points in by_protocol.values())
    on_front = {point for front in fronts for point in front}
    marked = tuple(
        Line(
            line.group,
            line.variant,
            line.name,
            tuple(_marked(point, point in on_front) for point in line.points),
        )
        for line in lines
    )
    axis = f"{times.title} latency ({times.axis})"
    title = f"{quality.title} against {times.title} latency"
    told = {protocol.rpartition(PROTOCOLS)[0] for protocol in variants}
    protocols = (
        variants if len(told) < len(variants) else [p.rpartition(PROTOCOLS)[0] for p in variants]
    )
    return Chart(title, axis, quality.axis, marked, None, False, "both", tuple(protocols), fronts)


def _pairs(quality: Quantity, times: Quantity, group: Group) -> dict[str, list[Point]]:
    """The group's runs by what must be equal for two points to be on one front."""
    found: dict[str, list[Point]] = {}
    for run in group.runs:
        if not run.is_done:
            continue
        for pruned in (False, True):
            worth, time = quality.of(run, pruned), times.of(run, pruned)
            if worth is None or time is None:
                continue
            points = found.setdefault(f"{time.protocol}{PROTOCOLS}{worth.protocol}", [])
            name = _state_text(group, run, pruned)
            text = "\n".join([
                name,
                f"{quality.title.lower()} {value_text(worth, quality.unit)}",
                f"{times.title} {value_text(time, times.unit)}",
                time.protocol,
            ])  # fmt: skip
            point = Point(time.value, worth.value, worth.stderr, text, is_dense=not pruned)
            if point not in points:
                points.append(point)
    return found


def _state_text(group: Group, run: ComparedRun, pruned: bool) -> str:
    if not pruned:
        return f"dense {run.model_name}"
    return f"{group.label}, {run.removed_percent or 0:.1f} % removed"


def _marked(point: Point, is_on_front: bool) -> Point:
    return Point(point.x, point.y, point.error, point.text, point.is_dense, is_on_front)


def pareto_front(points: Iterable[Point], upwards: bool = True) -> tuple[Point, ...]:
    """Points than which no other is both faster and better; the fastest first.

    ``upwards`` says that a higher ``y`` is better.
    """
    sign = 1 if upwards else -1
    front: list[Point] = []
    for point in sorted(set(points), key=lambda p: (p.x, -sign * p.y)):
        if not front or sign * point.y > sign * front[-1].y:
            front.append(point)
    return tuple(front)


def removal_maps(runs: Sequence[ComparedRun]) -> list[RemovalMap]:
    """One map per run of which it is known what went, group by group."""
    return [
        RemovalMap(
            place,
            group.label,
            run.name,
            f"{run.removed_percent or 0:.1f} %" + ("" if run.is_done else f", {run.state}"),
            len(run.pruning.shape.layers),
            tuple(cells_of(run.pruning)),
        )
        for place, group in enumerate(groups(runs))
        for run in group.runs
        if run.pruning
    ]


def published_names(drawn: Iterable[Chart]) -> list[str]:
    """What the published lines are called."""
    lines = (line for chart in drawn for line in chart.lines if line.group is None)
    return list(dict.fromkeys(line.name for line in lines))


def devices(runs: Iterable[ComparedRun]) -> list[str]:
    """Where the finished runs' latencies were measured."""
    return list(dict.fromkeys(run.device for run in runs if run.is_done and run.device))
