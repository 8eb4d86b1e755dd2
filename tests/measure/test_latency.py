"""What is timed, and that nothing else is touched. How fast it is, no test says."""

import gc
import json
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.measure import floors, latency
from pipeline.measure.allocations import Allocations
from pipeline.measure.floors import floor_of
from pipeline.measure.intervals import Interval
from pipeline.measure.latency import LatencySettings, OutOfRoomError, measure_latency
from pipeline.measure.memory import kv_cache_bytes_per_token, weight_bytes
from pipeline.measure.record import Latency, speed_up
from pipeline.models.prunable import PrunableModel

LAYERS, HEAD_DIM = 3, 8
SETTINGS = LatencySettings("short", batch=2, prompt_tokens=9, output_tokens=4, repeats=3, warmup=1)


@contextmanager
def recorded_ids(model: PrunableModel) -> Iterator[list[Tensor]]:
    """The token ids that go into the model, call by call."""
    calls: list[Tensor] = []
    embedding = model.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _, inputs, out: calls.append(inputs[0].clone()))
    yield calls
    hook.remove()


def test_the_record_says_what_was_measured(build) -> None:
    record, _ = measure_latency(build(), SETTINGS)
    assert (record.batch, record.prompt_tokens, record.output_tokens) == (2, 9, 4)
    assert (record.prefill.repeats, record.decode.repeats) == (3, 3 * 4)
    for timing in (record.prefill, record.decode):
        assert 0 < timing.median_ms <= timing.p95_ms
    assert record.tokens_per_s("prefill") == pytest.approx(2 * 9 / record.prefill.median_ms * 1000)
    assert record.tokens_per_s("decode") == pytest.approx(2 / record.decode.median_ms * 1000)


def test_median_and_95th_percentile(build, monkeypatch) -> None:
    generations = iter([[99.0, 99.0], [30.0, 3.0], [10.0, 1.0], [20.0, 2.0]])  # warm-up first
    monkeypatch.setattr(latency._CpuClock, "laps_ms", lambda self: next(generations))
    record, _ = measure_latency(build(), SETTINGS)
    assert (record.prefill.median_ms, record.decode.median_ms) == (20, 2)
    assert record.prefill.p95_ms == pytest.approx(np.percentile([10, 20, 30], 95))


def test_one_repeat_without_warmup_is_enough(build) -> None:
    record, _ = measure_latency(build(), LatencySettings("one", 1, 1, 1, repeats=1, warmup=0))
    assert record.prefill.median_ms == record.prefill.p95_ms > 0


def test_a_generation_is_a_whole_prompt_and_then_single_tokens(build) -> None:
    model = build()
    with recorded_ids(model) as calls:
        measure_latency(model, SETTINGS)
    generation = [(2, 9)] + [(2, 1)] * 4
    times = 1 + SETTINGS.warmup + SETTINGS.repeats  # in the first one memory is counted
    assert [tuple(ids.shape) for ids in calls] == generation * times


def test_decoding_goes_on_from_the_cache_as_generate_does(pruned) -> None:
    model = pruned(attn=(0,), attn_widths={1: 16})
    with recorded_ids(model) as calls:
        measure_latency(model, SETTINGS)
    prompts, *steps = calls[:5]
    expected = model.model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=4, do_sample=False
    )
    assert torch.equal(torch.cat(steps, dim=1), expected[:, 9:])


def test_the_physically_pruned_shapes_are_what_runs(pruned) -> None:
    model = pruned(attn=(0,), mlp=(1,), attn_widths={2: 16}, mlp_widths={0: 20})
    widths = []
    for name, module in model.model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("q_proj", "up_proj")):
            module.register_forward_hook(
                lambda _, inputs, out, name=name: widths.append((name[-6:], out.shape[-1]))
            )
    measure_latency(model, LatencySettings("one", 1, 3, 1, repeats=1, warmup=0))
    forward = [("p_proj", 20), ("q_proj", 32), ("q_proj", 16), ("p_proj", 48)]
    assert [(kind[-6:], width) for kind, width in widths] == forward * 4


@pytest.mark.parametrize("removed", [{"attn": (0, 1, 2)}, {"mlp": (0, 1, 2)}])
def test_a_model_without_a_kind_of_block_is_timed_too(pruned, removed) -> None:
    record, _ = measure_latency(pruned(**removed), SETTINGS)
    assert record.decode.median_ms > 0


def test_ids_are_in_the_vocabulary_and_the_same_every_time(build) -> None:
    prompts = []
    for _ in range(2):
        model = build(vocab_size=5)
        with recorded_ids(model) as calls:
            measure_latency(model, SETTINGS)
        prompts.append(calls[0])
    assert torch.equal(*prompts)
    assert set(prompts[0].flatten().tolist()) == set(range(5))


def test_global_random_state_is_left_alone(build) -> None:
    model = build()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    measure_latency(model, SETTINGS)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_garbage_is_collected_before_and_after_but_not_meanwhile(build) -> None:
    model = build()
    collecting: list[bool] = []
    model.model.register_forward_pre_hook(lambda *_: collecting.append(gc.isenabled()))
    measure_latency(model, LatencySettings("one", 1, 3, 1, repeats=2, warmup=1))
    before, timed = collecting[:4], collecting[4:]
    assert all(before)
    assert len(timed) == 4
    assert not any(timed)
    assert gc.isenabled()


def test_no_gradients_are_kept(build) -> None:
    model = build()
    model.model.requires_grad_(True)
    grad_modes = []
    model.model.register_forward_pre_hook(lambda *_: grad_modes.append(torch.is_grad_enabled()))
    measure_latency(model, LatencySettings("one", 1, 3, 1, repeats=1, warmup=0))
    assert grad_modes == [False] * 4


def test_more_tokens_than_the_models_context_are_refused(build) -> None:
    model = build(max_position_embeddings=12)
    with pytest.raises(StageError, match=r"9 prompt and 4 output tokens .* context of 12"):
        measure_latency(model, SETTINGS)
    measure_latency(model, LatencySettings("one", 1, 9, 3, repeats=1, warmup=0))


def test_memory_that_runs_out_is_said(build, monkeypatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    model = build()
    monkeypatch.setattr(model.model, "forward", no_memory)
    with pytest.raises(StageError, match=r"2 sequences of 9 \+ 4 tokens on cpu"):
        measure_latency(model, SETTINGS)
    assert gc.isenabled()


def test_the_peak_on_a_cpu_is_the_weights_and_what_one_generation_holds(build, pruned) -> None:
    peaks = []
    for model in (build(), pruned(mlp_widths={1: 20}), build()):
        held = torch.ones(2**26)  # 256 MiB stay, and as many come and go
        torch.ones(2**26)
        _, peak = measure_latency(model, SETTINGS)
        assert held.nbytes == 2**28
        peaks.append(peak)
        cache = SETTINGS.batch * (SETTINGS.prompt_tokens + SETTINGS.output_tokens)
        cache *= kv_cache_bytes_per_token(model)
        assert weight_bytes(model) + cache < peak < 2**27
    assert peaks[1] < peaks[0] == peaks[2], "the same every time"


def test_memory_of_tensors_is_counted_once_while_they_are_there() -> None:
    before = torch.ones(100)
    with Allocations() as counted:
        first = torch.ones(1000)
        second = first.view(10, 100) * 2 + before.view(1, 100)  # a product and a sum
        del first
        torch.ones(250)
    assert second.shape == (10, 100)
    assert counted.most == 4 * 3000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("removed", [{}, {"attn": (0,), "mlp_widths": {1: 20}}])
def test_on_a_gpu_events_time_the_device_and_the_peak_is_its_own(pruned, removed) -> None:
    model = pruned(**removed, dtype=torch.bfloat16)
    model.model.to("cuda")
    state = torch.cuda.get_rng_state().tolist()
    spare = torch.ones(2**28, device="cuda")
    del spare
    held = torch.ones(2**28, device="cuda")
    record, peak = measure_latency(model, SETTINGS)
    assert 0 < record.prefill.median_ms <= record.prefill.p95_ms
    assert 0 < record.decode.median_ms <= record.decode.p95_ms
    assert weight_bytes(model) < peak < 2**28 < held.nbytes
    assert torch.cuda.get_rng_state().tolist() == state


def paced(monkeypatch, paces: Iterable[list[float]]) -> None:
    """The clock says these laps of one generation after the other."""
    laps = iter(paces)
    monkeypatch.setattr(latency._CpuClock, "laps_ms", lambda self: next(laps))


def test_in_turns_with_the_dense_model_every_second_round_the_other_way(
    build, pruned, monkeypatch
) -> None:
    dense, model = build(), pruned(attn=(0,))
    order: list[str] = []
    for name, each in (("dense", dense), ("pruned", model)):
        each.model.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    settings = LatencySettings("one", 1, 3, 1, repeats=3, warmup=0)
    record, _ = measure_latency(model, settings, dense)
    generations = [order[i] for i in range(0, len(order), 2)]
    counted, *timed = generations
    assert counted == "pruned"
    assert timed == ["dense", "pruned", "pruned", "dense", "dense", "pruned"]
    assert record.way == "turns"
    assert record.speed_up is not None


def test_what_slows_a_whole_round_is_not_in_the_speed_up(build, pruned, monkeypatch) -> None:
    settings = LatencySettings("one", 1, 3, 2, repeats=3, warmup=0)
    slow = [1.0, 7.0, 3.0]
    rounds = [[[20 * s, 4 * s, 6 * s], [10 * s, 4 * s, 4 * s]] for s in slow]
    rounds[1].reverse()  # the second one starts with the pruned model
    paced(monkeypatch, [laps for pair in rounds for laps in pair])
    record, _ = measure_latency(pruned(attn=(0,)), settings, build())
    assert record.speed_up is not None
    assert record.speed_up.prefill == Interval(2.0, 2.0, 2.0)
    assert record.speed_up.decode == Interval(1.25, 1.25, 1.25)
    assert record.speed_up.dense("prefill").median_ms == 60.0
    assert record.timing("prefill").interval.ends == (10.0, 70.0)


def test_the_dense_model_itself_is_timed_alone_and_in_the_same_way(build) -> None:
    model = build()
    with recorded_ids(model) as calls:
        record, _ = measure_latency(model, SETTINGS, model)
    assert (record.way, record.speed_up) == ("turns", None)
    assert len(calls) == (1 + 4) * (1 + SETTINGS.warmup + SETTINGS.repeats)


def test_without_a_twin_there_is_no_speed_up_of_its_own(build, pruned) -> None:
    dense, _ = measure_latency(build(), SETTINGS)
    record, _ = measure_latency(pruned(attn=(0,)), SETTINGS)
    assert (record.way, record.why, record.speed_up) == ("eager", None, None)
    gain = speed_up(dense, record, "decode")
    assert gain is not None
    assert gain.low < dense.decode.median_ms / record.decode.median_ms < gain.high
    assert speed_up(replace(dense, batch=7), record, "decode") is None
    assert speed_up(replace(dense, way="graphs"), record, "decode") is None


def test_the_record_says_when_where_and_beside_what(build) -> None:
    record, _ = measure_latency(build(), SETTINGS)
    assert datetime.fromisoformat(record.taken).tzinfo == UTC
    assert record.threads == torch.get_num_threads()
    assert record.load is not None
    assert record.workload == "short"
    assert "2 × 9 + 4 tokens" in record.protocol  # noqa: RUF001
    assert replace(record, threads=1).protocol.endswith(", 1 thread")
    assert replace(record, threads=2).protocol.endswith(", 2 threads")
    assert Latency.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_what_an_earlier_version_wrote_is_read_and_compared_with_nothing_of_today(build) -> None:
    timing = {"median_ms": 10.0, "p95_ms": 12.0, "repeats": 5}
    earlier = Latency.from_json(
        {"batch": 2, "prompt_tokens": 9, "output_tokens": 4, "prefill": timing, "decode": timing,
         "prefill_tokens_per_s": 1800.0, "decode_tokens_per_s": 200.0}
    )  # fmt: skip
    assert earlier.way == "earlier"
    assert earlier.decode.interval.ends == (pytest.approx(10 / 1.2), 12.0)
    record, _ = measure_latency(build(), SETTINGS)
    assert speed_up(earlier, record, "decode") is None
    assert speed_up(earlier, earlier, "decode").contains(1.0)


def test_the_floor_counts_what_is_read_and_what_is_multiplied(build, pruned, monkeypatch) -> None:
    monkeypatch.setattr(floors, "_bandwidth", lambda device: 1e6)  # a byte in a microsecond
    monkeypatch.setattr(floors, "_rate", lambda device, dtype: 1e30)
    model = build()
    linear = sum(4 * m.weight.numel() for m in model.model.modules() if isinstance(m, nn.Linear))
    cache = LAYERS * 2 * 2 * HEAD_DIM * 4  # keys and values of two heads, in float32
    floor = floor_of(model, batch=2, prompt_tokens=9, output_tokens=4)
    assert floor.prefill_ms == pytest.approx(linear / 1e3)
    assert floor.decode_ms == pytest.approx((linear + 2 * (9 + 2) * cache) / 1e3)
    less = floor_of(pruned(mlp_widths={0: 24}), 2, 9, 4)
    assert floor.decode_ms - less.decode_ms == pytest.approx(3 * 24 * 32 * 4 / 1e3)
    monkeypatch.setattr(floors, "_rate", lambda device, dtype: 1.0)
    operations = 2 * 2 * linear / 4 + 4 * 2 * LAYERS * 32 * 11
    assert floor_of(model, 2, 9, 4).decode_ms == pytest.approx(operations * 1e3)


def test_the_device_is_asked_how_fast_it_copies_and_multiplies() -> None:
    assert floors._bandwidth(torch.device("cpu")) > 1e8
    assert floors._rate(torch.device("cpu"), torch.float32) > 1e8


def test_a_workload_without_room_is_told_by_its_name(build, monkeypatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    model = build()
    monkeypatch.setattr(model.model, "forward", no_memory)
    with pytest.raises(OutOfRoomError, match=r"workload short: .* take a smaller batch"):
        measure_latency(model, SETTINGS)


def test_another_error_is_not_taken_for_memory(build, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not fit")

    model = build()
    monkeypatch.setattr(model.model, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        measure_latency(model, SETTINGS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_cannot_be_captured_is_timed_without_graphs_and_says_why(build) -> None:
    model = build()
    model.model.to("cuda")
    asks_the_device = lambda *_: torch.ones(1, device="cuda").item() > 1 or None  # noqa: E731
    model.model.register_forward_pre_hook(asks_the_device)
    record, _ = measure_latency(model, SETTINGS)
    assert record.way == "eager"
    assert record.why.startswith("it cannot be captured: ")
    assert record.decode.median_ms > 0
