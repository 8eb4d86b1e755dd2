"""The loop that trains: the steps of a plain loop, and the best state whatever happens."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support_recovery import (
    Loaded,
    Said,
    counting,
    cut,
    examples,
    recovered,
    recovering,
)
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from pipeline.errors import StageError
from pipeline.models.loading import LiveModel
from pipeline.recovery.training import loop
from pipeline.recovery.training.loop import LEARNING
from pipeline.recovery.training.schedule import Schedule

PLAIN: dict[str, Any] = {"train": "all", "noise": 0.0, "logits": 0.0, "next_token": 1.0}
"""Distillation without a teacher's part: next tokens alone."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("warmup_steps", [0, 3])
@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
    ],
)
def test_the_rate_is_that_of_transformers(kind: str, reference: Any, warmup_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = reference(optimizer, warmup_steps, 11)
    schedule = Schedule(0.5, kind, warmup_steps, 11)
    for step in range(11):
        assert schedule.at(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


IDS = counting(5, 12, 3)
LENGTHS, PROMPT, EPOCHS = [12, 7, 9, 12, 5], 3, 6


def plainly_trained(tied: bool) -> dict[str, Tensor]:
    """The same with transformers' own loss, all examples in one padded batch."""
    live = LiveModel(Loaded(torch.float64, tie_word_embeddings=tied))
    model = live.at(cut(live))
    weights = list(model.model.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(weights, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)
    scheduler = get_linear_schedule_with_warmup(optimizer, 2, EPOCHS)
    is_there = torch.arange(12) < torch.tensor(LENGTHS)[:, None]
    labels = IDS.masked_fill(~is_there | (torch.arange(12) < PROMPT), -100)
    for _ in range(EPOCHS):
        loss = model.model(
            input_ids=IDS, attention_mask=is_there.long(), labels=labels, use_cache=False
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return {name: weight.detach() for name, weight in model.weights().items()}


@pytest.mark.parametrize(
    ("tied", "how"),
    [
        (True, {"micro_batch": 2}),
        (False, {"micro_batch": 5, "activation_checkpointing": True}),
    ],
)
def test_steps_are_those_of_a_plain_loop(tied: bool, how: dict[str, Any], tmp_path: Path) -> None:
    settings = {
        "lr": 2e-3,
        "schedule": "linear",
        "warmup_steps": 2,
        "epochs": EPOCHS,
        "betas": [0.9, 0.95],
        "weight_decay": 0.01,
        "clip_norm": 0.5,
    }
    load = Loaded(torch.float64, tie_word_embeddings=tied)
    train = examples(IDS, LENGTHS, PROMPT)
    job = recovering("distill", tmp_path, train, load=load, **PLAIN, **settings, **how)
    known, weights = recovered(job, "distill")
    assert (known["steps"], known["tokens"]) == (EPOCHS, EPOCHS * sum(LENGTHS))
    expected = plainly_trained(tied)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)


def test_where_memory_runs_out_less_is_computed_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = examples(counting(6, 10, 2), [10, 4, 6, 10, 8, 10])
    how = PLAIN | {"lr": 1e-3, "batch": 6, "epochs": 2, "warmup_steps": 0}
    load = Loaded(torch.float64)
    _, whole = recovered(recovering("distill", tmp_path / "a", train, load=load, **how), "distill")
    real, asked = loop.add_gradients, []

    def short_of_memory(model: Any, batch: Any, *rest: Any) -> float:
        asked.append(len(batch.rows))
        if asked[-1] > 1:
            raise torch.OutOfMemoryError
        return real(model, batch, *rest)

    monkeypatch.setattr(loop, "add_gradients", short_of_memory)
    _, parts = recovered(recovering("distill", tmp_path / "b", train, load=load, **how), "distill")
    assert asked == [6, 3, *[1] * 12]
    for name, weight in parts.items():
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-9)

    def no_memory(*_: Any) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "add_gradients", no_memory)
    with pytest.raises(StageError, match=r"recover\.distill\.activation_checkpointing=true"):
        recovered(recovering("distill", tmp_path / "c", train, load=load, **how), "distill")


TRAIN, HELD_OUT = examples(counting(16, 12, 3)), counting(4, 12, 3, seed=1)
FAST = PLAIN | {"lr": 5e-3, "batch": 4, "epochs": 3, "warmup_steps": 2, "measurements": 4}


def test_the_curve_and_the_progress_are_told(tmp_path: Path) -> None:
    said = Said()
    job = recovering("distill", tmp_path, TRAIN, HELD_OUT, said=said, **FAST)
    known, _ = recovered(job, "distill")
    lines = (tmp_path / LEARNING).read_text("utf-8").splitlines()
    curve = [json.loads(line) for line in lines]
    assert [point["tokens"] for point in curve] == [48 * step for step in range(13)]
    measured = [point["held_out"]["counting"] for point in curve if point["held_out"]]
    assert len(measured) == 5
    assert known["held_out"]["counting"] == {"before": measured[0], "after": min(measured)}
    assert min(measured) < measured[0]
    assert [(p.tokens, p.total_tokens) for p in said.progress] == [
        (point["tokens"], 576) for point in curve
    ]
    assert [path.name for path in tmp_path.iterdir()] == [LEARNING]


def test_learning_that_harms_leaves_the_weights(tmp_path: Path) -> None:
    said, live = Said(), LiveModel(Loaded())
    model = live.at(cut(live))
    before, own = model.weights(), counting(4, 1, 3)
    for _ in range(11):  # what it says itself: to no other model is it as likely
        logits = model.model(own, use_cache=False).logits[:, -1]
        own = torch.cat([own, logits.argmax(-1, keepdim=True)], dim=1)
    job = recovering("distill", tmp_path, TRAIN, own, said=said, **FAST | {"lr": 0.05})
    known, weights = recovered(job, "distill")
    assert known["kept_step"] == 0
    assert any("the weights stay as they were" in text for text in said)
    for name, weight in weights.items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("is_better", [True, False])
def test_a_loss_that_is_no_number_ends_it(
    is_better: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.add_gradients, []

    def broken(*arguments: Any) -> float:
        calls.append(1)
        return real(*arguments) if len(calls) < (8 if is_better else 2) else math.nan

    monkeypatch.setattr(loop, "add_gradients", broken)
    said = Said()
    job = recovering("distill", tmp_path, TRAIN, HELD_OUT, said=said, **FAST | {"warmup_steps": 0})
    if is_better:
        known, _ = recovered(job, "distill")
        assert known["kept_step"] in (3, 6)
        assert known["held_out"]["counting"]["after"] < known["held_out"]["counting"]["before"]
        assert any("no finite number in step 8" in text for text in said)
    else:
        with pytest.raises(StageError, match=r"recover\.distill\.lr=5e-4"):
            recovered(job, "distill")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_learn_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    settings = FAST | {"lr": 1e-3, "epochs": 8}
    job = recovering("distill", tmp_path, TRAIN, HELD_OUT, load=Loaded(dtype), **settings)
    known, weights = recovered(job, "distill")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    held_out = known["held_out"]["counting"]
    full = recovering("distill", tmp_path, TRAIN, HELD_OUT, **settings)
    assert held_out["after"] < 0.8 * held_out["before"]
    in_float32 = recovered(full, "distill")[0]["held_out"]["counting"]["after"]
    assert held_out["after"] == pytest.approx(in_float32, rel=0.02)


def test_a_rate_is_found(tmp_path: Path) -> None:
    said = Said()
    job = recovering(
        "distill", tmp_path, TRAIN, HELD_OUT, said=said, **FAST | {"lr": "auto", "epochs": 9}
    )
    known, _ = recovered(job, "distill")
    assert known["lr"] == 8e-4  # a random model learns fastest
    assert any("0.0001: " in text and "0.0008: " in text for text in said)
    without = recovering("distill", tmp_path, TRAIN, **FAST | {"lr": "auto"})
    with pytest.raises(StageError, match="needs held-out text"):
        recovered(without, "distill")
