"""Losses of states that walk together are those of the stock model with zeros in their place."""

import copy
import random
from pathlib import Path

import pytest
import torch
from support_inputs import save_model
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.models.loading import load
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import locate
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN, ATTN_WIDTH, MLP, MLP_WIDTH
from pipeline.scoring import states as module
from pipeline.scoring.divergence import DivergenceLoss, kullback_leibler
from pipeline.scoring.memory import Budget
from pipeline.scoring.one_pass import next_token_loss
from pipeline.scoring.perplexity import Windows
from pipeline.scoring.states import levels_of, losses_of_states

UNITS = ((ATTN, None), (MLP, None), (ATTN_WIDTH, 8), (MLP_WIDTH, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder, num_hidden_layers=4, initializer_range=0.3)


@pytest.fixture(scope="module")
def model(folder: Path) -> PrunableModel:
    return load(locate(str(folder), None, None), "float32", "cpu", "sdpa")


@pytest.fixture(scope="module")
def stock(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def windows() -> Windows:
    ids = torch.randint(4, 104, (5, 24), generator=torch.Generator().manual_seed(1))
    return Windows(ids, None)


@pytest.fixture(scope="module")
def states(model: PrunableModel) -> list[PruningState]:
    """Several that have much in common, one of them twice, and the dense one."""
    draw, found = random.Random(0), [PruningState.dense(model.shape)]
    for _ in range(11):
        state = draw.choice(found)
        for _ in range(draw.randint(1, 3)):
            unit, size = draw.choice(UNITS)
            if candidates := state.candidates((unit,), size):
                state = state.without(draw.choice(candidates))
        found.append(state)
    return [*found, found[3]]


def zeroed(stock: PreTrainedModel, state: PruningState) -> PreTrainedModel:
    """The stock model with zeros for what is gone: each layer's output layers say it all."""
    model = copy.deepcopy(stock)
    for index, layer in enumerate(model.model.layers):
        for kind, output in (("attn", layer.self_attn.o_proj), ("mlp", layer.mlp.down_proj)):
            kept = state.widths(kind)[index] if index in state.left(kind) else 0
            output.weight.data[:, kept:] = 0
    return model


@torch.no_grad()
def test_losses_are_those_of_an_independent_forward_pass(
    model: PrunableModel, stock: PreTrainedModel, windows: Windows, states: list[PruningState]
) -> None:
    divergence = DivergenceLoss.of(model, windows, 0.7, kullback_leibler)
    which = range(1, 5)
    losses = losses_of_states(model, states, windows, which, next_token_loss, 0.7)
    divergences = losses_of_states(model, states, windows, which, divergence, 0.7)
    ids = windows.ids[1:]
    dense = log_softmax(stock(ids).logits, -1)
    for row, state in enumerate(states):
        logits = zeroed(stock, state)(ids).logits
        wanted = cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none").mean(dim=1)
        torch.testing.assert_close(losses[row].float(), wanted, rtol=1e-4, atol=1e-5)
        each = kl_div(log_softmax(logits, -1), dense, reduction="none", log_target=True)
        wanted = each.sum(-1).mean(dim=1)
        torch.testing.assert_close(divergences[row].float(), wanted, rtol=1e-3, atol=1e-5)
    assert divergences[0].abs().max() < 1e-6, "the dense model is no way from itself"
    assert model.state == states[0], "the model is as it was"


def test_a_state_has_the_same_losses_whoever_walks_with_it(
    model: PrunableModel,
    windows: Windows,
    states: list[PruningState],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = range(len(windows.ids))
    together = losses_of_states(model, states, windows, everything, next_token_loss, 0.7)
    for row, state in enumerate(states):
        alone = losses_of_states(model, [state], windows, everything, next_token_loss, 0.7)
        assert alone[0].tolist() == together[row].tolist()
    told: list[float] = []
    monkeypatch.setattr(Budget, "now", lambda *_: Budget(sequences=7, rows=1))
    walk, walked = module._walk, []
    monkeypatch.setattr(module, "_walk", lambda *given: walked.append(given) or walk(*given))
    little = losses_of_states(model, states, windows, everything, next_token_loss, 0.7, told.append)
    torch.testing.assert_close(little, together)
    assert len(walked) > 2
    assert sum(told) == pytest.approx(1)


def test_levels_tell_live_models_apart(states: list[PruningState]) -> None:
    """Equal ones have equal levels, and the other way round."""
    levels = {str(state.live_identity()): levels_of(state) for state in states}
    assert len(set(levels.values())) == len(levels)
    assert levels_of(states[3]) == levels_of(states[-1])
