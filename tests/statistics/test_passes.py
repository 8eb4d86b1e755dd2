"""Statistics and gradients: what does not change them, and what they refuse."""

from pathlib import Path

import pytest
import torch
from support_inputs import save_model
from torch import nn
from transformers import AutoModelForCausalLM

from pipeline.errors import DamagedError, StageError
from pipeline.files import encode, replace
from pipeline.models.ordering import ChannelOrder
from pipeline.models.prunable import PrunableModel
from pipeline.scoring.perplexity import Windows
from pipeline.statistics import activations, gradients

EOS = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


@pytest.fixture
def windows() -> Windows:
    ids = torch.randint(4, 104, (5, 12), generator=torch.Generator().manual_seed(0))
    ids[1, 4:9] = EOS
    return Windows(ids, EOS)


def loaded(folder: Path) -> PrunableModel:
    return PrunableModel(AutoModelForCausalLM.from_pretrained(folder))


def test_statistics_are_the_same_however_many_windows_go_at_a_time(
    folder: Path, windows: Windows
) -> None:
    one, all_at_once = (
        activations.collect(loaded(folder), windows, rows).values for rows in (1, 5)
    )
    assert one.keys() == all_at_once.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, all_at_once[name], rtol=1e-5, atol=1e-7)


def test_targets_that_end_a_sequence_have_no_gradient(folder: Path, windows: Windows) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    logits = model(windows.ids).logits[:, :-1].transpose(1, 2)
    targets = windows.ids[:, 1:]
    counted = targets != EOS
    losses = nn.functional.cross_entropy(logits, targets, reduction="none") * counted
    (losses.sum(1) / counted.sum(1)).mean().backward()
    found = gradients.collect(loaded(folder), windows)
    for i, layer in enumerate(model.model.layers):
        parts = {"attn": (layer.input_layernorm, layer.self_attn),
                 "mlp": (layer.post_attention_layernorm, layer.mlp)}  # fmt: skip
        for kind, modules in parts.items():
            weights = [p for module in modules for p in module.parameters()]
            whole = sum((p * p.grad).abs().sum() for p in weights)
            torch.testing.assert_close(found.of(f"{kind}.{i}", "whole"), whole.detach())


def test_gradients_that_memory_cannot_hold_are_refused_before_they_are_begun(
    folder: Path, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "free_bytes", lambda _: 1000)
    monkeypatch.setattr(gradients, "_add_window", lambda *_: pytest.fail("begun"))
    with pytest.raises(
        StageError, match=r"gradients take about .* GB beside the model, and 0\.0 GB"
    ):
        gradients.collect(loaded(folder), windows)


def test_an_order_is_read_as_it_was_written_or_not_at_all(tmp_path: Path) -> None:
    scores = {"attn.0": torch.tensor([1.0, 3.0]), "mlp.0": torch.tensor([2.0, 2.0, 5.0])}
    means = {"attn.0": torch.rand(8), "mlp.0": torch.rand(3)}
    order, with_means = ChannelOrder.by("some", scores), ChannelOrder.by("some", scores, means)
    assert order.groups == {"attn.0": (1, 0), "mlp.0": (2, 0, 1)}
    assert order.digest != with_means.digest
    path = tmp_path / "channel_order.json"
    assert ChannelOrder.read(path) is None
    for each in (order, with_means):
        replace(path, encode(each.to_json()))
        assert ChannelOrder.read(path) == each
    changed = {**with_means.to_json(), "groups": {"attn.0": [0, 1], "mlp.0": [2, 0, 1]}}
    for damaged in (changed, {"groups": 3}, {}):
        replace(path, encode(damaged))
        with pytest.raises(DamagedError):
            ChannelOrder.read(path)
