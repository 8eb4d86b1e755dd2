"""What is measured of runs, as numbers that can be compared."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.measure.record import Latency
from pipeline.report.compare.records import ComparedRun, Measured, Value
from pipeline.report.data import finite
from pipeline.report.dense_and_pruned import BYTES_PER_MB
from pipeline.report.wording import TIMES, number


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
        measured = finite(of(side.latency)) if side.latency else None
        if side.latency is None or measured is None:
            return None
        return Value(measured, None, latency_protocol(side, side.latency))

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


def percent_of_dense(quantity: Quantity, run: ComparedRun) -> Value | None:
    """The pruned model's value in percent of the dense one's, measured alike."""
    before, after = quantity.of(run, False), quantity.of(run, True)
    if not before or not after or before.protocol != after.protocol or before.value <= 0:
        return None
    return Value(after.value / before.value * 100, None, after.protocol)


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
