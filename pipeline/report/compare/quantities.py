"""What is measured of runs, as numbers that can be compared."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.measure.intervals import Interval
from pipeline.measure.record import Latency, Part, speed_up
from pipeline.report.compare.records import ComparedRun, Measured, Value
from pipeline.report.data import finite
from pipeline.report.dense_and_pruned import BYTES_PER_MB
from pipeline.report.wording import number, span

Of = Callable[[ComparedRun, bool], Value | None]
"""A value of the pruned model (true) or the dense one."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured of a model, in numbers for an axis."""

    title: str
    axis: str
    unit: str
    of: Of
    has_percent: bool = False
    """Whether it is shown relative to the dense model, too."""


def _latency_value(
    of: Callable[[Latency], float], interval: Callable[[Latency], Interval] | None = None
) -> Of:
    def value(run: ComparedRun, pruned: bool) -> Value | None:
        side = run.pruned if pruned else run.dense
        measured = finite(of(side.latency)) if side.latency else None
        if side.latency is None or measured is None:
            return None
        known = interval(side.latency) if interval else None
        return Value(measured, None, latency_protocol(side, side.latency), known)

    return value


def _milliseconds(part: Part) -> Of:
    return _latency_value(
        lambda latency: latency.timing(part).median_ms,
        lambda latency: latency.timing(part).interval,
    )


def _speed(part: Part) -> Of:
    return _latency_value(lambda latency: latency.tokens_per_s(part))


def latency_protocol(side: Measured, latency: Latency) -> str:
    """Device, batch, lengths and way: what must be equal for times to be compared."""
    return f"{side.device or 'unknown device'}, {latency.protocol}"


def _memory_value(of: Callable[[Measured], float | None]) -> Callable[..., Value | None]:
    def value(run: ComparedRun, pruned: bool) -> Value | None:
        side = run.pruned if pruned else run.dense
        measured = of(side) if side.memory else None
        return None if measured is None else Value(measured, None, side.device or "unknown device")

    return value


def _peak_mb(side: Measured) -> float | None:
    peak = side.memory.peak if side.memory else None
    return peak / BYTES_PER_MB if peak else None


def _cache_bytes(side: Measured) -> float | None:
    return side.memory.kv_cache_per_token if side.memory else None


ACCURACY = Quantity("Accuracy", "percent, ± standard error", "%", lambda r, p: r.accuracy(p))
PERPLEXITY = Quantity("Held-out perplexity", "perplexity", "", lambda r, p: r.perplexity(p))
PREFILL = Quantity("Prefill speed", "tokens/s", "tokens/s", _speed("prefill"), True)
DECODE = Quantity("Decode speed", "tokens/s", "tokens/s", _speed("decode"), True)
PEAK = Quantity("Peak memory", "MB", "MB", _memory_value(_peak_mb), True)
CACHE = Quantity(
    "KV cache", "bytes per token", "bytes per token", _memory_value(_cache_bytes), True
)
PREFILL_MS = Quantity("prefill", "ms", "ms", _milliseconds("prefill"))
DECODE_MS = Quantity("decode", "ms per token", "ms", _milliseconds("decode"))


def percent_of_dense(quantity: Quantity, run: ComparedRun) -> Value | None:
    """The pruned model's value in percent of the dense one's, measured alike.

    A speed has an interval.
    """
    if part := SPEEDS.get(quantity.title):
        return _speed_percent(part, run)
    before, after = quantity.of(run, False), quantity.of(run, True)
    if not before or not after or before.protocol != after.protocol or before.value <= 0:
        return None
    return Value(after.value / before.value * 100, None, after.protocol)


SPEEDS: dict[str, Part] = {PREFILL.title: "prefill", DECODE.title: "decode"}


def _speed_percent(part: Part, run: ComparedRun) -> Value | None:
    dense, pruned = run.dense, run.pruned
    same_device = dense.device == pruned.device
    gain = speed_up(dense.latency if same_device else None, pruned.latency, part)
    if gain is None or pruned.latency is None:
        return None
    percent = gain.times(100)
    return Value(percent.median, None, latency_protocol(pruned, pruned.latency), percent)


def percent_text(percent: Value) -> str:
    """With its interval where there is one."""
    if percent.interval is None:
        return f"{percent.value:.1f} %"
    return f"{percent.value:.1f} % ({span(*percent.interval.ends, digits=1)})"


def value_text(value: Value | None, unit: str = "", digits: int = 2) -> str:
    """With its standard error where there is one."""
    if value is None:
        return number(None)
    if value.stderr is not None:
        return f"{value.value:.1f} ± {value.stderr:.1f} {unit}".strip()
    if unit == "%":
        return f"{value.value:.1f} %"
    return f"{number(value.value, digits)} {unit}".strip()


def devices(runs: Iterable[ComparedRun]) -> list[str]:
    """Where the finished runs' latencies were measured."""
    return list(dict.fromkeys(run.device for run in runs if run.is_done and run.device))
