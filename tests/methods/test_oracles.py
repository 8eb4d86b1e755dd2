"""Every method against its paper's formula, written plainly on a stock model with hooks."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from support_oracle import (
    Piece,
    by_head,
    channels,
    decided,
    greedy,
    output,
    params_of,
    perplexity,
    silent,
    stock,
    streams,
    total,
    until,
    widths_left,
)
from torch import Tensor, nn
from transformers import PreTrainedModel

TARGET = 30.0

pytestmark = pytest.mark.xdist_group("methods against oracles")


@dataclass(frozen=True)
class Golden:
    """A tiny trained model of six layers, and calibration windows in which no text ends."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "model"

    @cached_property
    def ids(self) -> Tensor:
        golden = json.loads((self.folder / "golden.json").read_text("utf-8"))
        return torch.tensor(golden["calibration"]["block"])[:4, :64]

    @cached_property
    def model(self) -> PreTrainedModel:
        return stock(self.path)

    @property
    def attn_group(self) -> int:
        """Query channels of a key/value head with its query heads."""
        config = self.model.config
        return output(self.model, "attn.0").shape[1] // config.num_key_value_heads

    def pieces(self, *units: str, layers: range = range(6)) -> list[Piece]:
        """In the order that decides ties."""
        return [(unit, layer) for unit in units for layer in layers]

    def ppl_without(self, gone: list[Piece]) -> float:
        with silent(self.model, gone):
            return perplexity(self.model, self.ids)


@pytest.fixture(scope="module", params=["llama_mha", "llama_gqa", "qwen2_gqa"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    torch.set_num_threads(1)
    return Golden(shared / "golden" / request.param)


# ---- greedy


def test_blockpruner_takes_the_block_without_which_perplexity_is_lowest(golden: Golden) -> None:
    ours = decided("blockpruner", golden.path, golden.ids, target_ratio=TARGET)
    wanted = greedy(golden.model, golden.pieces("attn", "mlp"), golden.ppl_without)
    assert ours.removed == until(golden.model, wanted, TARGET)


def test_sleb_takes_layers_but_never_the_first_or_the_last(golden: Golden) -> None:
    ours = decided("sleb", golden.path, golden.ids, target_ratio=TARGET)
    inner = golden.pieces("layer", layers=range(1, 5))
    wanted = greedy(golden.model, inner, golden.ppl_without)
    assert ours.removed == until(golden.model, wanted, TARGET)


def test_finercut_stays_nearest_to_the_dense_models_output(golden: Golden) -> None:
    ours = decided("finercut", golden.path, golden.ids, target_ratio=TARGET)
    with torch.no_grad():
        dense = golden.model(golden.ids).logits.softmax(-1)

    @torch.no_grad()
    def divergence(gone: list[Piece]) -> float:
        with silent(golden.model, gone):
            other = golden.model(golden.ids).logits.softmax(-1)
        middle = (dense + other) / 2
        of_each = [(p * (p / middle).log()).sum(-1).mean().item() for p in (dense, other)]
        return sum(of_each) / 2

    wanted = until(
        golden.model, greedy(golden.model, golden.pieces("attn", "mlp"), divergence), TARGET
    )
    assert ours.removed == wanted
    assert ours.steps[-1].score == pytest.approx(divergence(wanted), rel=1e-3)


# ---- one shot


def one_shot(golden: Golden, scores: dict[Piece, float]) -> list[Piece]:
    """From the lowest score, up to the target; of equal ones the first."""
    return until(golden.model, iter(sorted(scores, key=scores.__getitem__)), TARGET)


@pytest.mark.parametrize("units", ["layers", "blocks"])
def test_shortgpt_takes_what_turns_the_hidden_states_least(golden: Golden, units: str) -> None:
    ours = decided("shortgpt", golden.path, golden.ids, target_ratio=TARGET, units=units)
    seen = streams(golden.model, golden.ids)
    influence = {}
    for piece in golden.pieces(*(["layer"] if units == "layers" else ["attn", "mlp"])):
        x, y = (each.double() for each in seen[piece])
        cosine = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
        influence[piece] = 1 - cosine.mean().item()
    assert ours.removed == one_shot(golden, influence)
    assert ours.steps[0].score == pytest.approx(min(influence.values()), rel=1e-4)


@pytest.mark.parametrize("units", ["layers", "blocks"])
def test_relative_magnitude_takes_what_adds_least(golden: Golden, units: str) -> None:
    ours = decided("relative_magnitude", golden.path, golden.ids, target_ratio=TARGET, units=units)
    seen = streams(golden.model, golden.ids)
    magnitude = {}
    for piece in golden.pieces(*(["layer"] if units == "layers" else ["attn", "mlp"])):
        x, y = (each.double() for each in seen[piece])
        magnitude[piece] = ((y - x).norm(dim=-1) / y.norm(dim=-1)).mean().item()
    assert ours.removed == one_shot(golden, magnitude)
    assert ours.steps[0].score == pytest.approx(min(magnitude.values()), rel=1e-4)


def with_gradients(golden: Golden) -> PreTrainedModel:
    """The model after one step back from the mean loss of all windows."""
    model = stock(golden.path)
    logits = model(golden.ids).logits[:, :-1].flatten(0, 1)
    nn.functional.cross_entropy(logits, golden.ids[:, 1:].flatten()).backward()
    return model


@pytest.mark.parametrize("criterion", ["ppl", "taylor", "magnitude"])
def test_shortened_llama_takes_layers_in_one_shot(golden: Golden, criterion: str) -> None:
    kept = {"keep_first": 1, "keep_last": 1}
    settings = {"target_ratio": TARGET, "criterion": criterion, **kept}
    ours = decided("shortened_llama", golden.path, golden.ids, **settings)
    model = with_gradients(golden)
    score = {
        "ppl": lambda i: golden.ppl_without([("layer", i)]),
        "taylor": lambda i: sum(
            (p * p.grad).abs().double().sum().item() for p in model.model.layers[i].parameters()
        ),
        "magnitude": lambda i: sum(
            p.abs().double().sum().item() for p in model.model.layers[i].parameters()
        ),
    }[criterion]
    scores = {("layer", i): score(i) for i in range(1, 5)}
    assert ours.removed == one_shot(golden, scores)
    assert ours.steps[0].score == pytest.approx(min(scores.values()), rel=1e-4)
    assert sum(step.evaluations for step in ours.steps) == 4


# ---- channels and heads


def importance(golden: Golden, method: str, setting: str | None = None) -> dict[str, Tensor]:
    """By block, of each group of channels, as the method's paper or code has it."""
    model = golden.model
    seen = channels(model, golden.ids)
    scores = {}
    grown = with_gradients(golden) if setting == "taylor" else model
    for block, inputs in seen.items():
        tokens, weight = inputs.flatten(0, 1).double(), output(model, block).double()
        match method:
            case "wanda_sp":
                columns = (weight.abs() * tokens.norm(dim=0)).mean(dim=0)
            case "magnitude":
                columns = weight.abs().pow(1 if setting == "l1" else 2).sum(dim=0)
                columns = columns if setting == "l1" else columns.sqrt()
            case "two_ssp":
                columns = inputs.double().norm(dim=1).mean(dim=0)
            case "flap":
                columns = tokens.var(dim=0) * weight.square().sum(dim=0)
                columns = columns.square() if block.startswith("attn") else columns
                columns = (columns - columns.mean()) / columns.std()
                scores[block] = by_head(model, block, columns).mean(dim=1)
                continue
            case "llm_pruner":
                assert setting
                scores[block] = coupled(grown, block, setting)
                continue
        scores[block] = by_head(model, block, columns).sum(dim=1)
    return scores


def coupled(model: PreTrainedModel, block: str, importance: str) -> Tensor:
    """Summed over all weights that go together: rows of the first layers, columns of the last."""

    def of(weight: Tensor) -> Tensor:
        if importance == "taylor":
            return (weight * weight.grad).detach().abs().double()
        return weight.detach().double().abs().pow(1 if importance == "l1" else 2)

    kind, layer = block.split(".")
    whole = model.model.layers[int(layer)]
    if kind == "mlp":
        gate, up, down = (
            of(getattr(whole.mlp, f"{n}_proj").weight) for n in ("gate", "up", "down")
        )
        return gate.sum(1) + up.sum(1) + down.sum(0)
    heads = model.config.num_key_value_heads
    query, key, value = (
        of(getattr(whole.self_attn, f"{n}_proj").weight).sum(1).view(heads, -1).sum(1)
        for n in "qkv"
    )
    return query + key + value + of(whole.self_attn.o_proj.weight).sum(0).view(heads, -1).sum(1)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("wanda_sp", {}),
        ("flap", {}),
        ("magnitude", {"norm": "l1"}),
        ("magnitude", {"norm": "l2"}),
        ("llm_pruner", {"importance": "taylor"}),
        ("llm_pruner", {"importance": "l1"}),
        ("llm_pruner", {"importance": "l2"}),
    ],
)
def test_channels_and_heads_with_the_lowest_scores_go(
    golden: Golden, method: str, setting: dict[str, str]
) -> None:
    kept = {"keep_first": 1, "keep_last": 1} if method == "llm_pruner" else {}
    sizes = {"mlp_group_size": 8, "attn_group_size": golden.attn_group}
    target = 15.0
    ours = decided(method, golden.path, golden.ids, target_ratio=target, **sizes, **setting, **kept)
    scores = importance(golden, method, next(iter(setting.values()), None))
    inner = {b: s for b, s in scores.items() if not kept or 1 <= int(b.split(".")[1]) <= 4}
    uniform = method != "flap"
    wanted = widths_left(golden.model, inner, {"mlp": 8, "attn": 1}, target, uniform=uniform)
    everything = {block: list(range(len(each))) for block, each in scores.items()}
    assert {block: ours.kept(block) for block in scores} == everything | wanted
    assert ours.state.ratio_percent >= target
    cut = {step.chosen.unit.name for step in ours.steps}
    assert "mlp_width" in cut


def test_two_ssp_narrows_all_mlps_alike_and_then_takes_attentions(golden: Golden) -> None:
    model, target = golden.model, 35.0
    ours = decided("two_ssp", golden.path, golden.ids, target_ratio=target, mlp_group_size=8)
    attn = sum(params_of(model, "attn", i) for i in range(6))
    mlp = sum(params_of(model, "mlp", i) for i in range(6))
    share = target / 100 * total(model) / (attn + mlp)
    count = round(6 * share ** ((mlp / attn) / 1.5))
    assert count >= 1
    first = target - count * attn / 6 / total(model) * 100
    scores = importance(golden, "two_ssp")
    mlps = {block: each for block, each in scores.items() if block.startswith("mlp")}
    wanted = widths_left(model, mlps, {"mlp": 8}, first, uniform=True)
    assert {block: ours.kept(block) for block in mlps} == wanted
    attentions = [layer for unit, layer in ours.removed if unit == "attn"]
    assert [unit for unit, _ in ours.removed][-len(attentions) :] == ["attn"] * len(attentions)

    narrowed = stock(golden.path)
    for block, kept in wanted.items():
        weight = narrowed.model.layers[int(block.split(".")[1])].mlp.down_proj.weight
        mask = torch.zeros(weight.shape[1])
        mask[kept] = 1
        weight.data.mul_(mask)

    def ppl(gone: list[Piece]) -> float:
        with silent(narrowed, gone):
            return perplexity(narrowed, golden.ids)

    by_perplexity = greedy(narrowed, golden.pieces("attn"), ppl)
    assert attentions == [next(by_perplexity)[1] for _ in attentions]
    assert len(attentions) <= count
    assert math.isclose(ours.steps[-1].score, ppl([("attn", i) for i in attentions]), rel_tol=1e-4)
