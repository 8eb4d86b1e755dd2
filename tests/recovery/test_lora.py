"""LoRA: the reference's recipe, merged into a model like any other."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import CONF
from support_recovery import Loaded, counting, examples, recovered, recovering
from yaml import safe_load

from pipeline.recovery import techniques
from pipeline.recovery.training.adapters import Adapters, training

TRAIN, HELD_OUT = examples(counting(32, 12, 3), prompt=4), counting(4, 12, 3, seed=1)
FAST: dict[str, Any] = {"lr": 1e-2, "batch": 8, "epochs": 6, "warmup_steps": 2, "measurements": 3}


def test_the_defaults_are_the_published_recipe() -> None:
    section = techniques()["lora"].section
    recipe = safe_load((CONF / "recover" / "lora.yaml").read_text("utf-8"))
    assert recipe["steps"] == ["lora"]
    assert section(**recipe["lora"]) == section()
    assert techniques()["lora"].learns_instructions(section())
    assert not techniques()["lora"].learns_instructions(section(data="text"))
    problem = techniques()["lora"].refused(None, section(), "disk")  # type: ignore[arg-type]
    assert problem is not None
    assert "model.offload=none" in problem


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_merged_the_model_answers_as_with_adapters(dtype: torch.dtype) -> None:
    job = recovering("lora", Path("/tmp"), TRAIN, load=Loaded(dtype))  # noqa: S108 - not written to
    model = job.live.at(job.variant)
    before = {name: weight.clone() for name, weight in model.weights().items()}
    with training(model, Adapters(rank=4, alpha=8, dropout=0.5, seed=1)) as parameters:
        is_wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert {p.dtype for p in parameters.values()} == {is_wide}
        linears = [
            m for block in model.blocks for m in block.body.modules() if hasattr(m, "lora_A")
        ]
        assert len(parameters) == 2 * len(linears) == 2 * (2 * 4 + 3 * 3)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.normal_(0, 0.1)
        with_adapters = copy.deepcopy(model.model).eval()(TRAIN.ids[:4]).logits
    assert not hasattr(model.model, "peft_config")
    assert model.weights().keys() == before.keys()
    changed = {name for name, w in model.weights().items() if not torch.equal(w, before[name])}
    assert len(changed) == len(linears)
    assert {weight.dtype for weight in model.weights().values()} == {dtype}
    merged = model.model(TRAIN.ids[:4]).logits
    atol = 1e-9 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(merged, with_adapters, rtol=0, atol=atol)


def test_a_pruned_model_learns(tmp_path: Path) -> None:
    job = recovering("lora", tmp_path, TRAIN, HELD_OUT, load=Loaded(torch.float16), **FAST)
    known, _ = recovered(job, "lora")
    held_out = known["held_out"]["counting"]
    assert held_out["after"] < 0.8 * held_out["before"]


def test_without_held_out_text_the_last_state_is_the_result(tmp_path: Path) -> None:
    known, weights = recovered(recovering("lora", tmp_path, TRAIN, **FAST), "lora")
    assert known["held_out"] == {}
    assert known["kept_step"] == known["steps"] == 24
    before = Loaded()(None).weights()  # type: ignore[arg-type]
    changed = [n for n in before.keys() & weights if before[n].shape == weights[n].shape]
    assert any(not torch.equal(before[name], weights[name]) for name in changed)
