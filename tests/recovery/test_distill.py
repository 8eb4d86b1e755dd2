"""Distillation: what is minimised, and where the teacher's answers come from."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import CONF
from support_recovery import Loaded, counting, examples, recovered, recovering
from torch import Tensor
from torch.nn.functional import cross_entropy
from yaml import safe_load

from pipeline.errors import StageError
from pipeline.recovery import techniques
from pipeline.recovery.training import distillation
from pipeline.recovery.training.distillation import divergence, divergence_of_top
from pipeline.recovery.training.losses import Batch, add_gradients, targets_of
from pipeline.recovery.training.noise import Noise

TRAIN, HELD_OUT = examples(counting(16, 12, 3)), counting(4, 12, 3, seed=1)
FAST: dict[str, Any] = {
    "noise": 0.0,
    "lr": 3e-3,
    "batch": 4,
    "epochs": 3,
    "warmup_steps": 2,
    "measurements": 3,
}
RAGGED = examples(counting(3, 9, 5), [9, 4, 6], prompt=2)


def test_the_divergence_is_that_of_the_definition() -> None:
    logits, dense = torch.randn(2, 7, 11, dtype=torch.float64).unbind()
    wanted, mine = (torch.softmax(each / 2, -1) for each in (dense, logits))
    expected = (wanted * (wanted / mine).log()).sum()
    torch.testing.assert_close(divergence(logits, dense, 2.0), expected)
    top = torch.log_softmax(dense / 2, -1).topk(10)
    whole = divergence_of_top(logits, top.values, top.indices, 2.0)
    torch.testing.assert_close(whole, expected)
    three = torch.log_softmax(dense / 2, -1).topk(3)
    assert divergence_of_top(logits, three.values, three.indices, 2.0) < expected  # merged, so less


@pytest.mark.parametrize("is_stored", [False, True])
def test_gradients_are_those_of_the_whole_loss(
    is_stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one that has all logits at once, from transformers' own forward pass."""
    monkeypatch.setitem(distillation.parts.__globals__["LOGITS_AT_ONCE"], "cpu", 160)  # 3 tokens
    job = recovering("distill", tmp_path, RAGGED, load=Loaded(torch.float64))
    model = job.live.at(job.variant)
    dense = distillation.dense_twin(job.live, model)
    stored = tmp_path / "answers.safetensors" if is_stored else None
    if stored:
        distillation.store_answers(dense, RAGGED, 999, 2.0, stored)
    hidden = 0.0 if is_stored else 0.3
    objective = distillation.Distillation(0.7, 2.0, 0.2, hidden, RAGGED, stored)
    loss_of = objective.open(job.live, model)
    weights = model.weights()
    for weight in weights.values():
        weight.requires_grad_(True)
    targets = int(targets_of(RAGGED).sum())
    assert targets == 7 + 2 + 4
    loss = sum(
        add_gradients(model, Batch.of(RAGGED, rows, model.device), loss_of, targets, nullcontext)
        for rows in ([2, 0], [1])
    )
    gradients = {name: weight.grad for name, weight in weights.items()}
    for weight in weights.values():
        weight.grad = None

    def of(model: Any) -> tuple[Tensor, Tensor]:
        out = model.model.model(input_ids=RAGGED.ids).last_hidden_state[:, :-1]
        return out[RAGGED.learnt[:, 1:]], model.model.lm_head(out)[RAGGED.learnt[:, 1:]]

    (mine, logits), (theirs, wanted) = of(model), of(dense)
    expected = 0.7 * 4 * divergence(logits, wanted, 2.0)
    expected = expected + 0.2 * cross_entropy(
        logits, RAGGED.ids[:, 1:][RAGGED.learnt[:, 1:]], reduction="sum"
    )
    far = (mine - theirs).norm(dim=1) ** 2 / theirs.norm(dim=1) ** 2
    expected = expected + hidden * far.sum()
    (expected / targets).backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, weight in weights.items():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-5, atol=1e-7)


def test_every_example_has_its_own_noise_whoever_reads_it() -> None:
    text = examples(counting(6, 400, 7), [400, 250, 400, 90, 400, 400])
    noise = Noise.of(0.2, text, seed=1)
    assert noise
    assert Noise.of(0.0, text, seed=1) is None

    def read(step: int, rows: list[int]) -> list[list[int]]:
        batch = Batch.of(text, rows, torch.device("cpu"))
        noised = noise.on(batch, step)
        assert noised.targets is batch.targets
        lengths = text.lengths[rows].tolist()
        return [each[:n] for each, n in zip(noised.ids.tolist(), lengths, strict=True)]

    together = read(4, [0, 3, 1])
    assert together == [*read(4, [0]), *read(4, [3]), *read(4, [1])]
    assert together != read(5, [0, 3, 1])
    other = [a != b for a, b in zip(together[0], text.ids[0].tolist(), strict=True)]
    assert 40 < sum(other) < 100
    assert set(together[0]) <= set(text.ids[text.learnt].tolist())


@pytest.mark.parametrize("train", ["layers", "all", "lora"])
def test_a_pruned_model_comes_closer_to_the_dense_one(train: str, tmp_path: Path) -> None:
    """On text that the dense model writes itself, so that it is the best there is."""
    load = Loaded()
    torch.manual_seed(0)
    text = load(None).model.generate(  # type: ignore[arg-type]
        counting(72, 1, 1), max_new_tokens=15, do_sample=True, pad_token_id=0
    )
    learnt = examples(text[:64])
    settings = FAST | {"epochs": 6, "train": train, "lr": 1e-2 if train == "lora" else 2e-3}
    job = recovering("distill", tmp_path, learnt, text[64:], **settings)
    known, _ = recovered(job, "distill")
    held_out = known["held_out"]["counting"]
    assert held_out["after"] < 0.95 * held_out["before"]


def test_layers_learn_and_what_stands_for_tokens_stays(tmp_path: Path) -> None:
    job = recovering("distill", tmp_path, TRAIN, **FAST)
    model = job.live.at(job.variant)
    before = {name: weight.clone() for name, weight in model.weights().items()}
    of_layers = model.weights(of_tokens=False).keys()
    assert {"model.embed_tokens.weight", "lm_head.weight"} & before.keys() == (
        before.keys() - of_layers
    )
    _, weights = recovered(job, "distill")
    changed = {name for name, weight in weights.items() if not weight.equal(before[name])}
    assert changed == of_layers


def test_stored_answers_teach_as_the_live_teacher_does(tmp_path: Path) -> None:
    live = recovered(recovering("distill", tmp_path / "a", TRAIN, HELD_OUT, **FAST), "distill")
    stored = recovering(
        "distill", tmp_path / "b", TRAIN, HELD_OUT, teacher="stored", top_tokens=99, **FAST
    )
    _, weights = recovered(stored, "distill")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["learning.jsonl"]
    for name, weight in weights.items():
        torch.testing.assert_close(weight, live[1][name], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "offload", "typed"),
    [
        ({}, "cpu", "model.offload=none"),
        ({"hidden": 0.1, "teacher": "stored"}, "none", "recover.distill.teacher=live"),
        ({"teacher": "stored"}, "none", "recover.distill.noise=0"),
        ({"logits": 0.0, "next_token": 0.0}, "none", "give logits, next_token or hidden a weight"),
        ({}, "none", None),
    ],
)
def test_what_cannot_be_done_is_refused(
    settings: dict[str, Any], offload: str, typed: str | None
) -> None:
    distill = techniques()["distill"]
    problem = distill.refused(None, distill.section(**settings), offload)  # type: ignore[arg-type]
    assert problem is None if typed is None else typed in (problem or "")


def test_an_error_leaves_no_changed_model(tmp_path: Path) -> None:
    job = recovering("distill", tmp_path, TRAIN, HELD_OUT, **FAST)
    before = job.live.at(job.variant)

    def stop(_: Any) -> None:
        raise StageError("stopped")

    object.__setattr__(job, "progress", stop)
    with pytest.raises(StageError, match="stopped"):
        recovered(job, "distill")
    assert job.live.at(job.variant) is not before


def test_the_options_say_the_defaults() -> None:
    distill = techniques()["distill"]
    options = safe_load((CONF / "recover" / "distill.yaml").read_text("utf-8"))
    assert options["steps"] == ["distill"]
    assert distill.section(**options["distill"]) == distill.section()
