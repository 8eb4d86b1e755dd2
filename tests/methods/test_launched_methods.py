"""Methods as they are launched: what they share is made once, and what they leave can be read."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import MODEL, TINY, configured, problems_of, save_model, write_tokens
from support_oracle import channels
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

import launch
from pipeline.api import open_run
from pipeline.models.ordering import ChannelOrder
from pipeline.plan.preflight import Preflight
from pipeline.plan.run import Run
from pipeline.runs.runner import loader_of

Json = dict[str, Any]
QUIET = ("probe=none", "evaluate=none", "tracking=none")
SIZES = ("prune.mlp_group_size=4", "prune.attn_group_size=8")
ALL = (*TINY, *QUIET, "prune.target_ratio=12")
METHODS = ("shortgpt", "relative_magnitude", "wanda_sp", "flap", "two_ssp", "llm_pruner")

pytestmark = pytest.mark.xdist_group("launched methods")


@dataclass(frozen=True)
class Place:
    """Where runs are launched from, with a model of four layers and token ids."""

    path: Path

    def launch(self, *arguments: str) -> None:
        sys.argv = ["launch.py", *arguments]
        assert launch.main() == 0

    def run(self, name: str) -> Path:
        return self.path / "outputs" / "runs" / name

    def read(self, name: str, file: str) -> Json:
        return json.loads((self.run(name) / file).read_text("utf-8"))

    def trajectories(self) -> dict[str, Json]:
        """Identities of all that were walked, by key."""
        found = (self.path / "outputs" / "store" / "trajectories").glob("*/identity.json")
        return {path.parent.name: json.loads(path.read_text("utf-8")) for path in found}

    def steps(self, name: str) -> list[Json]:
        lines = (self.run(name) / "steps.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With one sweep of methods, launched twice."""
    place = Place(tmp_path_factory.mktemp("methods"))
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.path)
        patch.setattr(sys, "argv", [])
        save_model(Path("model"), num_hidden_layers=4)
        block = torch.randint(4, 104, (5, 24), generator=generator).tolist()
        write_tokens(Path("tokens.json"), block, block[:2])
        for sweep in ("first", "again"):
            place.launch(
                "-m", *ALL, *SIZES, f"prune={','.join(METHODS)}", "prune.keep_first=1",
                "prune.target_ratio=8", f"sweep.name={sweep}",
                "run.name=${sweep.name}-${prune.method}",
            )  # fmt: skip
    return place


def test_statistics_and_gradients_are_computed_once_for_all_methods(place: Place) -> None:
    summary = json.loads((place.path / "outputs/sweeps/first/summary.json").read_text("utf-8"))
    assert [run["status"] for run in summary["runs"]] == ["done"] * len(METHODS)
    assert summary["passes"] == 2
    stages = [place.read(f"first-{name}", "summary.json")["stages"] for name in METHODS]
    for made in ("statistics", "gradients"):
        known = [each[made]["status"] for each in stages if made in each]
        assert known.count("new") == 1
        assert set(known) <= {"new", "reused"}
    folders = place.path / "outputs" / "store" / "stages"
    assert [len(list((folders / made).iterdir())) for made in ("statistics", "gradients")] == [1, 1]


def test_the_same_sweep_again_computes_nothing(place: Place) -> None:
    for name in METHODS:
        summary = place.read(f"again-{name}", "summary.json")
        assert (summary["passes"], summary["steps_computed"]) == (0, 0)
        assert place.steps(f"again-{name}") == place.steps(f"first-{name}")


def test_steps_say_what_went_and_by_which_score(place: Place) -> None:
    wanted = {
        "shortgpt": ("layer", "block_influence"),
        "relative_magnitude": ("layer", "relative_magnitude"),
        "wanda_sp": ("mlp_width", "wanda"),
        "flap": ("mlp_width", "flap"),
        "two_ssp": ("mlp_width", "activations"),
        "llm_pruner": ("mlp_width", "taylor"),
    }
    for name, (unit, criterion) in wanted.items():
        step = next(step for step in place.steps(f"first-{name}") if step["unit"] == unit)
        assert step["criterion"] == criterion
        assert step["score"] == min(each["score"] for each in step["candidates"])
    for name in METHODS:
        assert place.read(f"first-{name}", "summary.json")["ratio_percent"] >= 8
    layers = {step["layer"] for step in place.steps("first-llm_pruner")}
    assert layers <= {1}, "the first and the last two are kept"


@pytest.mark.parametrize("name", ["wanda_sp", "flap", "llm_pruner"])
def test_the_model_of_a_run_lacks_what_the_order_beside_it_says(place: Place, name: str) -> None:
    folder = place.run(f"first-{name}")
    given, order = (
        json.loads((folder / file).read_text("utf-8"))
        for file in ("pruning_config.json", "channel_order.json")
    )
    assert order["order"] == {"llm_pruner": "taylor", "wanda_sp": "wanda"}.get(name, name)
    stock, without = (
        AutoModelForCausalLM.from_pretrained(place.path / "model").eval() for _ in range(2)
    )
    tokens = json.loads((place.path / "tokens.json").read_text("utf-8"))["block"]
    biased = name == "flap"
    mask(stock, given, order["groups"], channels(stock, torch.tensor(tokens)) if biased else None)
    mask(without, given, order["groups"], None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.path)
        ours = open_run(folder).model()
    ids = torch.randint(4, 104, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, stock(ids).logits, rtol=1e-4, atol=1e-6)
        assert torch.allclose(stock(ids).logits, without(ids).logits, 1e-4, 1e-6) != biased
    assert sum(p.numel() for p in ours.parameters()) < sum(p.numel() for p in stock.parameters())
    assert ("means" in order) == biased


def mask(
    model: PreTrainedModel,
    pruned: Json,
    groups: dict[str, list[int]],
    inputs: dict[str, Tensor] | None,
) -> None:
    """Silence all channels that are not among the first of their order.

    With what entered the last layers of the dense model, add what they gave on average.
    """
    for i, layer in enumerate(model.model.layers):
        for kind, linear in (("attn", layer.self_attn.o_proj), ("mlp", layer.mlp.down_proj)):
            places = groups[f"{kind}.{i}"]
            by_group = torch.arange(linear.in_features).view(len(places), -1)
            width = pruned[f"pruned_{kind}_width"][str(i)]
            kept = by_group[places].flatten()[:width]
            silent = torch.ones(linear.in_features, dtype=torch.bool)
            silent[kept] = False
            if inputs:
                mean = inputs[f"{kind}.{i}"].flatten(0, 1).mean(dim=0)
                bias = linear.weight.data[:, silent] @ mean[silent]
                linear.register_forward_hook(lambda _, _inputs, out, bias=bias: out + bias)
            linear.weight.data[:, silent] = 0


def test_an_evaluation_of_a_given_pruning_takes_the_order_beside_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.path)
    Path("text.txt").write_text("a text", "utf-8")
    given = place.run("first-flap") / "pruning_config.json"

    def run_with(path: Path) -> Run:
        config = configured(
            *TINY, "probe=none", f"evaluate.pruning_config={path}", "evaluate.tasks=[piqa]"
        )
        source = Run.open(place.run("first-flap")).source
        return Run.prepare(config, source)

    run = run_with(given)
    order = ChannelOrder.read(place.run("first-flap") / "channel_order.json")
    assert order
    assert loader_of(run).reorder == order
    alone = Path("alone") / "pruning_config.json"
    alone.parent.mkdir()
    alone.write_bytes(given.read_bytes())
    assert loader_of(run_with(alone)).reorder is True
    assert run_with(alone).plan.key != run.plan.key


def test_blockpruner_is_the_first_dimension_of_multipruner_and_shares_its_trajectory(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.path)
    blocks = ("prune.distribution=[100,0,0]", "prune.weight_reorder=false")
    place.launch(*ALL, *SIZES, *blocks, "prune.target_ratio=20", "run.name=blocks")
    before = place.trajectories()
    place.launch(*ALL, "prune=blockpruner", "prune.target_ratio=20", "run.name=blockpruner")
    assert place.trajectories() == before
    summary = place.read("blockpruner", "summary.json")
    assert (summary["candidates_scored"], summary["steps_computed"]) == (0, 0)
    assert place.steps("blockpruner") == place.steps("blocks")
    assert place.read("blockpruner", "pruning_config.json") == place.read(
        "blocks", "pruning_config.json"
    )


def test_multipruner_cuts_the_tail_of_whatever_order_it_is_given(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.path)
    common = (*ALL, *SIZES, "prune.distribution=[0,100,0]", "score.enabled=false")
    for order in ("false", "true", "wanda", "flap", "taylor"):
        place.launch(*common, f"prune.weight_reorder={order}", f"run.name=by-{order}")
        assert all("importance" in step for step in place.steps(f"by-{order}"))
        stored = place.run(f"by-{order}") / "channel_order.json"
        assert stored.exists() == (order not in ("false", "true"))
    reordered = [
        each["weight_reorder"]
        for each in place.trajectories().values()
        if each["dimension"] == "mlp_channels" and "search" in each
    ]
    assert len(reordered) == 5, "another order is another model"
    assert {(each["order"], each["is"]) for each in reordered if not isinstance(each, bool)} == {
        (order, place.read(f"by-{order}", "channel_order.json")["digest"])
        for order in ("wanda", "flap", "taylor")
    }
    passes = [place.read(f"by-{order}", "summary.json")["passes"] for order in ("wanda", "flap")]
    assert passes == [0, 0]


# ---- what is refused before the run


def test_biases_that_a_family_does_not_have_are_refused_before_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.path)
    Qwen2ForCausalLM(Qwen2Config(**MODEL | {"num_hidden_layers": 4})).save_pretrained("qwen")
    arguments = (*TINY, *QUIET, *SIZES, "model.path=qwen", "prune=flap", "prune.target_ratio=8")
    Preflight().check(configured(*arguments))
    (problem,) = problems_of(lambda: Preflight().check(configured(*arguments, "prune.bias=true")))
    assert problem == (
        "prune.bias: true is wrong; allowed is null or false: qwen2 models have no biases in the "
        "layers that give what a block adds"
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("prune=sleb", "prune.target_ratio=60"),
            "prune.target_ratio: 60 is wrong; allowed is up to 34.43: with prune.keep_first and "
            "prune.keep_last prune=sleb can remove no more of this model",
        ),
        (
            ("prune=llm_pruner", "prune.mlp_group_size=4", "prune.attn_group_size=8"),
            "prune.target_ratio: 20 is wrong; allowed is up to 0.00: with prune.keep_first, "
            "prune.keep_last and these group sizes prune=llm_pruner can remove no more of this "
            "model",
        ),
        (
            ("prune=flap", "prune.mlp_group_size=24", "prune.attn_group_size=8"),
            "prune.mlp_group_size: 24 is wrong; allowed is a number from 1 to 23: this model's "
            "MLPs have 24 channels",
        ),
        (
            ("prune=shortened_llama", "prune.criterion=taylor", "prune.keep_first=1",
             "prune.keep_last=1", "model.offload=cpu"),
            "model.offload: cpu is wrong; allowed is none: prune=shortened_llama asks for "
            "gradients, of weights that are on the device",
        ),
        (
            ("prune.weight_reorder=taylor", "prune.mlp_group_size=4", "prune.attn_group_size=8",
             "model.offload=disk"),
            "model.offload: disk is wrong; allowed is none: prune=multipruner asks for "
            "gradients, of weights that are on the device",
        ),
    ],
)  # fmt: skip
def test_what_a_method_cannot_do_is_named_before_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], problem: str
) -> None:
    monkeypatch.chdir(place.path)
    config = configured(*TINY, *QUIET, *arguments)
    assert problems_of(lambda: Preflight().check(config)) == [problem]
