"""What is timed, and that nothing else is touched. How fast it is, no test says."""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.measure import latency
from pipeline.measure.latency import LatencySettings, measure_latency
from pipeline.measure.memory import weight_bytes
from pipeline.models.prunable import PrunableModel

SETTINGS = LatencySettings(batch=2, prompt_tokens=9, output_tokens=4, repeats=3, warmup=1)


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
    assert record.prefill_tokens_per_s == pytest.approx(2 * 9 / record.prefill.median_ms * 1000)
    assert record.decode_tokens_per_s == pytest.approx(2 / record.decode.median_ms * 1000)


def test_median_and_95th_percentile(build, monkeypatch) -> None:
    generations = iter([[99.0, 99.0], [30.0, 3.0], [10.0, 1.0], [20.0, 2.0]])  # warm-up first
    monkeypatch.setattr(latency._CpuClock, "laps_ms", lambda self: next(generations))
    record, _ = measure_latency(build(), SETTINGS)
    assert (record.prefill.median_ms, record.decode.median_ms) == (20, 2)
    assert record.prefill.p95_ms == pytest.approx(np.percentile([10, 20, 30], 95))


def test_one_repeat_without_warmup_is_enough(build) -> None:
    record, _ = measure_latency(build(), LatencySettings(1, 1, 1, repeats=1, warmup=0))
    assert record.prefill.median_ms == record.prefill.p95_ms > 0


def test_a_generation_is_a_whole_prompt_and_then_single_tokens(build) -> None:
    model = build()
    with recorded_ids(model) as calls:
        measure_latency(model, SETTINGS)
    generation = [(2, 9)] + [(2, 1)] * 4
    assert [tuple(ids.shape) for ids in calls] == generation * (SETTINGS.warmup + SETTINGS.repeats)


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
    measure_latency(model, LatencySettings(1, 3, 1, repeats=1, warmup=0))
    forward = [("p_proj", 20), ("q_proj", 32), ("q_proj", 16), ("p_proj", 48)]
    assert [(kind[-6:], width) for kind, width in widths] == forward * 2


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
    measure_latency(model, LatencySettings(1, 3, 1, repeats=2, warmup=1))
    warmup, timed = collecting[:2], collecting[2:]
    assert all(warmup)
    assert not any(timed)
    assert gc.isenabled()


def test_no_gradients_are_kept(build) -> None:
    model = build()
    model.model.requires_grad_(True)
    grad_modes = []
    model.model.register_forward_pre_hook(lambda *_: grad_modes.append(torch.is_grad_enabled()))
    measure_latency(model, LatencySettings(1, 3, 1, repeats=1, warmup=0))
    assert grad_modes == [False, False]


def test_more_tokens_than_the_models_context_are_refused(build) -> None:
    model = build(max_position_embeddings=12)
    with pytest.raises(StageError, match=r"9 prompt and 4 output tokens .* context of 12"):
        measure_latency(model, SETTINGS)
    measure_latency(model, LatencySettings(1, 9, 3, repeats=1, warmup=0))


def test_memory_that_runs_out_is_said(build, monkeypatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    model = build()
    monkeypatch.setattr(model.model, "forward", no_memory)
    with pytest.raises(StageError, match=r"2 sequences of 9 \+ 4 tokens on cpu"):
        measure_latency(model, SETTINGS)
    assert gc.isenabled()


def test_the_peak_on_a_cpu_is_of_the_measurement_alone(build) -> None:
    model = build()
    torch.ones(2**26)  # 256 MiB come and go before it
    held = torch.ones(2**26)  # and 256 MiB stay
    _, peak = measure_latency(model, SETTINGS)
    assert held.nbytes == 2**28
    if peak is None:
        pytest.skip("this system does not start the peak anew")
    assert weight_bytes(model) <= peak < 2**27


def test_where_the_peak_cannot_be_started_anew_there_is_none(build, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(latency, "CLEAR_REFS", tmp_path / "none" / "clear_refs")
    _, peak = measure_latency(build(), SETTINGS)
    assert peak is None


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
