"""Time of prefill and decoding, and the most memory they take.

The time is the model's, not the interpreter's or the neighbour's: on a GPU it is that of CUDA
graphs, on a CPU every generation of the pruned model has one of the dense model beside it.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import StageError
from pipeline.measure.allocations import Allocations
from pipeline.measure.floors import floor_of
from pipeline.measure.intervals import Interval
from pipeline.measure.memory import weight_bytes
from pipeline.measure.record import EAGER, GRAPHS, TURNS, Latency, SpeedUp, Timing, Way
from pipeline.measure.workloads import LatencySettings
from pipeline.models.prunable import PrunableModel

AGREEING = 0.005
"""Graphs are timed no more than twice where the medians differ by less."""
GPU_BOUND_TOKENS = 1024
"""From so many tokens of prompts on, the way without graphs is tried too: the GPU is the limit."""


class OutOfRoomError(StageError):
    """The device has no memory for a workload; a smaller one may fit."""


@dataclass(frozen=True, slots=True)
class _Times:
    """Milliseconds: of each prefill, and of each step of each generation."""

    prefill: list[float]
    decode: list[list[float]]


def measure_latency(
    model: PrunableModel,
    settings: LatencySettings,
    dense: PrunableModel | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[Latency, int]:
    """Time the model as it is, and tell the peak bytes of memory meanwhile.

    A generation is one prefill of random token ids ``[batch, prompt_tokens]`` and ``output_tokens``
    greedy decoding steps of one token for every sequence. On a GPU prefill and step are replayed as
    CUDA graphs and timed by events; where they cannot be captured, the record says why. On a CPU
    ``dense``, where it is given, is timed in turns with the model, which gives the speed-up an
    interval that does not depend on what else the machine does; ``on_progress`` is called with the
    share that was done since the last call. The peak is the weights and the most that other
    tensors took beside them, whatever else the process holds: on a CPU it is counted in one more
    generation, the first. Global random state is left alone. Raises ``StageError`` where the
    model's context is too short, ``OutOfRoomError`` where memory runs out.
    """
    _check_context(model, settings)
    load = os.getloadavg()[0]
    ids = _prompts(model, settings)
    is_gpu = model.device.type == "cuda"
    try:
        peak = _CudaPeak(model.device) if is_gpu else _CpuPeak(model, settings, ids)
        way, why, times, of_dense = _timed(model, settings, ids, dense, on_progress)
        beside = peak.read_bytes()
        floor = floor_of(model, settings.batch, settings.prompt_tokens, settings.output_tokens)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfRoomError(
            f"workload {settings.workload}: out of memory while timing {settings.batch} sequences "
            f"of {settings.prompt_tokens} + {settings.output_tokens} tokens on {model.device}; "
            "take a smaller batch or fewer tokens"
        ) from error
    latency = Latency(
        workload=settings.workload,
        batch=settings.batch,
        prompt_tokens=settings.prompt_tokens,
        output_tokens=settings.output_tokens,
        prefill=_timing(times.prefill),
        decode=_timing([step_ms for steps in times.decode for step_ms in steps]),
        way=way,
        why=why,
        speed_up=_speed_up(of_dense, times) if of_dense else None,
        floor=floor,
        threads=None if is_gpu else torch.get_num_threads(),
        load=load,
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return latency, weight_bytes(model) + beside


Timed = tuple[Way, str | None, _Times, _Times | None]
"""How it was timed, why without graphs, the model's times, and the dense model's."""


def _timed(
    model: PrunableModel,
    settings: LatencySettings,
    ids: Tensor,
    dense: PrunableModel | None,
    on_progress: Callable[[float], None],
) -> Timed:
    if model.device.type == "cuda":
        return _on_gpu(model, settings, ids)
    beside = [] if dense is None or dense is model else [dense]
    *of_dense, times = _one_by_one([*beside, model], settings, ids, on_progress)
    way = EAGER if dense is None else TURNS
    return way, None, times, of_dense[0] if of_dense else None


def _one_by_one(
    models: Sequence[PrunableModel],
    settings: LatencySettings,
    ids: Tensor,
    on_progress: Callable[[float], None] = lambda _: None,
) -> list[_Times]:
    """Generations of each model, in turns; every second round in the other order."""
    clock: _Clock = _CpuClock() if ids.device.type == "cpu" else _CudaClock(ids.device)
    share = 1 / ((settings.warmup + settings.repeats) * len(models))
    for _ in range(settings.warmup):
        for model in models:
            _generate(model, ids, settings.output_tokens, clock)
            on_progress(share)
    times = [_Times([], []) for _ in models]
    with _no_garbage_collection():
        for turn in range(settings.repeats):
            pairs = list(zip(models, times, strict=True))
            for model, own in pairs if turn % 2 == 0 else reversed(pairs):
                prefill, *steps = _generate(model, ids, settings.output_tokens, clock)
                own.prefill.append(prefill)
                own.decode.append(steps)
                on_progress(share)
    return times


def _speed_up(dense: _Times, pruned: _Times) -> SpeedUp:
    """Of rounds in which both were timed one after the other: what slows a round cancels."""
    prefill = [a / b for a, b in zip(dense.prefill, pruned.prefill, strict=True)]
    steps = zip(dense.decode, pruned.decode, strict=True)
    decode = [median(a) / median(b) for a, b in steps]
    return SpeedUp(
        prefill=Interval.of(prefill),
        decode=Interval.of(decode),
        dense_prefill=_timing(dense.prefill),
        dense_decode=_timing([step_ms for steps in dense.decode for step_ms in steps]),
    )


def _on_gpu(model: PrunableModel, settings: LatencySettings, ids: Tensor) -> Timed:
    why = _why_no_graphs(model)
    if why is None:
        try:
            return GRAPHS, None, _replayed(model, settings, ids), None
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:  # its code asks it
            why = f"it cannot be captured: {str(error).splitlines()[0]}"
    return EAGER, why, _one_by_one([model], settings, ids)[0], None


def _why_no_graphs(model: PrunableModel) -> str | None:
    if any(block.offloaded for block in model.blocks):
        return "the weights of its blocks are brought to the device while it runs"
    return None


@torch.no_grad()
def _replayed(model: PrunableModel, settings: LatencySettings, ids: Tensor) -> _Times:
    """Prefill and decoding by graphs; for long prompts the faster way of prefill."""
    from pipeline.measure.graphs import Decoding, captured

    clock = _CudaClock(ids.device)
    out: Any = None

    def prefill() -> None:
        nonlocal out
        out = model.model(input_ids=ids, use_cache=True, logits_to_keep=1)

    graph = captured(prefill, lambda: None, ids.device)
    prefills = _repeated(settings, clock, 1, graph.replay)
    if ids.numel() >= GPU_BOUND_TOKENS:
        prefills = min(prefills, _repeated(settings, clock, 1, prefill), key=_median)
    # the graph's memory is free for decoding; what it leaves in the cache goes on from here
    del graph
    prefill()
    first = out.logits[:, -1:].argmax(dim=-1)
    decoding = Decoding(model, out.past_key_values, first, settings.output_tokens + 1)
    out = None
    graph = captured(decoding.step, decoding.rewind, ids.device)
    decodes = _repeated(settings, clock, settings.output_tokens, graph.replay, decoding.rewind)
    return _Times([each for (each,) in prefills], decodes)


def _repeated(
    settings: LatencySettings,
    clock: "_Clock",
    laps: int,
    work: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Laps of ``work``, as often as they are asked for, or until two medians agree.

    What was captured is warm.
    """
    times: list[list[float]] = []
    for _ in range(settings.repeats):
        before()
        clock.start()
        for _ in range(laps):
            work()
            clock.lap()
        times.append(clock.laps_ms())
        if len(times) > 1 and abs(median(times[-1]) / median(times[-2]) - 1) < AGREEING:
            break
    return times


def _median(times: list[list[float]]) -> float:
    return median(each for laps in times for each in laps)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. On a CPU torch says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "can't allocate memory" in str(error)
    )


def _check_context(model: PrunableModel, settings: LatencySettings) -> None:
    needed = settings.prompt_tokens + settings.output_tokens
    context = model.context_length
    if context is not None and needed > context:
        raise StageError(
            f"workload {settings.workload}: {settings.prompt_tokens} prompt and "
            f"{settings.output_tokens} output tokens do not fit into the model's context of "
            f"{context} tokens"
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
    for _ in _passes(model, ids, output_tokens):
        clock.lap()
    return clock.laps_ms()


def _passes(model: PrunableModel, ids: Tensor, output_tokens: int) -> Iterator[None]:
    """Do the prefill, then each decoding step of one generation."""
    cache: Any = None
    for _ in range(1 + output_tokens):
        out = model.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids, cache = out.logits[:, -1:].argmax(dim=-1), out.past_key_values
        yield


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

    def read_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before


class _CpuPeak:
    """Counted in a generation of its own: counting takes longer than a small model's steps."""

    @torch.no_grad()
    def __init__(self, model: PrunableModel, settings: LatencySettings, ids: Tensor) -> None:
        self._counted = Allocations()
        with self._counted:
            for _ in _passes(model, ids, settings.output_tokens):
                pass

    def read_bytes(self) -> int:
        return self._counted.most


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
    interval = Interval.of(times_ms)
    return Timing(
        median_ms=interval.median,
        p95_ms=times.quantile(0.95).item(),
        repeats=len(times_ms),
        min_ms=min(times_ms),
        low_ms=interval.low,
        high_ms=interval.high,
    )
