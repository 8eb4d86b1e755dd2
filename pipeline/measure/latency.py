"""Time of prefill and decoding, and the most memory they take."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import StageError
from pipeline.measure.memory import weight_bytes
from pipeline.measure.record import Latency, Timing
from pipeline.models.prunable import PrunableModel

CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK_RSS = "5"  # proc_pid_clear_refs(5): makes the peak the present size again
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """What is timed."""

    batch: int
    """Sequences that are prefilled and decoded together."""
    prompt_tokens: int
    """Tokens of each prompt."""
    output_tokens: int
    """Tokens decoded for each prompt."""
    repeats: int
    """Generations that are timed."""
    warmup: int
    """Generations before those, which are not."""


def measure_latency(model: PrunableModel, settings: LatencySettings) -> tuple[Latency, int | None]:
    """Time the model as it is, and tell the peak bytes of memory meanwhile.

    A generation is one prefill of random token ids ``[batch, prompt_tokens]`` and ``output_tokens``
    greedy decoding steps of one token for every sequence. Each generation gives one time for
    prefill and one per step for decoding; median and 95th percentile are over all generations after
    the warm-up. The peak is the weights and the most that running them took beside, whatever else
    the process holds: on a CPU by its resident memory, and None where the system does not tell.
    Global random state is left alone. Raises ``StageError`` where the model's context is too short,
    and where memory runs out.
    """
    _check_context(model, settings)
    ids = _prompts(model, settings)
    clock = _CudaClock(model.device) if model.device.type == "cuda" else _CpuClock()
    peak = _CudaPeak(model.device) if model.device.type == "cuda" else _CpuPeak()
    weights = weight_bytes(model)
    try:
        for _ in range(settings.warmup):
            _generate(model, ids, settings.output_tokens, clock)
        with _no_garbage_collection():
            runs = [
                _generate(model, ids, settings.output_tokens, clock)
                for _ in range(settings.repeats)
            ]
    except torch.OutOfMemoryError as error:
        raise StageError(
            f"out of memory while timing {settings.batch} sequences of {settings.prompt_tokens} + "
            f"{settings.output_tokens} tokens on {model.device}; take a smaller batch or fewer "
            "tokens"
        ) from error
    beside = peak.read_bytes()
    return _latency(settings, runs), None if beside is None else weights + beside


def _latency(settings: LatencySettings, runs: list[list[float]]) -> Latency:
    prefill = _timing([run[0] for run in runs])
    decode = _timing([step_ms for run in runs for step_ms in run[1:]])
    return Latency(
        batch=settings.batch,
        prompt_tokens=settings.prompt_tokens,
        output_tokens=settings.output_tokens,
        prefill=prefill,
        decode=decode,
        prefill_tokens_per_s=settings.batch * settings.prompt_tokens / prefill.median_ms * 1e3,
        decode_tokens_per_s=settings.batch / decode.median_ms * 1e3,
    )


def _check_context(model: PrunableModel, settings: LatencySettings) -> None:
    needed = settings.prompt_tokens + settings.output_tokens
    context = model.context_length
    if context is not None and needed > context:
        raise StageError(
            f"latency: {settings.prompt_tokens} prompt and {settings.output_tokens} output tokens "
            f"do not fit into the model's context of {context} tokens"
        )


def _prompts(model: PrunableModel, settings: LatencySettings) -> Tensor:
    shape = (settings.batch, settings.prompt_tokens)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocabulary_size, shape, generator=generator)
    return ids.to(model.device)


# Not inference_mode: a rotary buffer that a model renews meanwhile would stay an inference tensor,
# which no later training could use.
@torch.no_grad()
def _generate(
    model: PrunableModel, ids: Tensor, output_tokens: int, clock: "_Clock"
) -> list[float]:
    """Milliseconds of the prefill and of each decoding step of one generation."""
    clock.start()
    cache: Any = None
    for _ in range(1 + output_tokens):
        out = model.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids, cache = out.logits[:, -1:].argmax(dim=-1), out.past_key_values
        clock.lap()
    return clock.laps_ms()


class _Clock(Protocol):
    """A stop watch. ``laps_ms`` gives the time of each lap since ``start``."""

    def start(self) -> None: ...
    def lap(self) -> None: ...
    def laps_ms(self) -> list[float]: ...


class _CpuClock:
    def start(self) -> None:
        self._times = [time.perf_counter()]

    def lap(self) -> None:
        self._times.append(time.perf_counter())

    def laps_ms(self) -> list[float]:
        return [1e3 * (b - a) for a, b in zip(self._times, self._times[1:], strict=False)]


class _CudaClock:
    """Events in the stream: waiting for each step on the host would add to it what it measures."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> None:
        torch.cuda.synchronize(self._device)
        self._events: list[torch.cuda.Event] = []
        self.lap()

    def lap(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._events.append(event)

    def laps_ms(self) -> list[float]:
        torch.cuda.synchronize(self._device)
        return [a.elapsed_time(b) for a, b in zip(self._events, self._events[1:], strict=False)]


class _CudaPeak:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.reset_peak_memory_stats(device)
        self._before = torch.cuda.memory_allocated(device)

    def read_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) - self._before


class _CpuPeak:
    """The process's peak resident memory, where Linux lets us start it anew."""

    def __init__(self) -> None:
        self._before: int | None
        try:
            CLEAR_REFS.write_text(RESET_PEAK_RSS)
            self._before = _status_bytes("VmRSS")
        except OSError:
            self._before = None

    def read_bytes(self) -> int | None:
        return None if self._before is None else _status_bytes("VmHWM") - self._before


def _status_bytes(field: str) -> int:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields[field].removesuffix("kB")) * 1024


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python's collector pauses for longer than a small model decodes a token."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _timing(times_ms: list[float]) -> Timing:
    times = torch.tensor(times_ms, dtype=torch.float64)
    return Timing(times.quantile(0.5).item(), times.quantile(0.95).item(), len(times_ms))
