"""A method is one file and one yaml: random choice, and whole layers by perplexity, once scored."""

import pytest
import torch
from support_methods import Checkout, MethodRun
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

RANDOM = '''"""Blocks in a random order."""

import random
from collections.abc import Sequence

from pipeline.criteria.base import Criterion, Material, ScoredBy
from pipeline.methods.base import Method
from pipeline.pruning.phases import Phase
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS, Candidate
from pipeline.settings.core import PruneConfig


class RandomConfig(PruneConfig):
    """Blocks in a random order."""

    seed: int = 0
    """Another seed gives another order."""


class Random(Method[RandomConfig]):
    """Every block that is left is as likely to go as any other."""

    name = "random"
    section = RandomConfig

    def phases(self, settings: RandomConfig) -> tuple[Phase, ...]:
        return (Phase("blocks", BLOCKS, settings.target_ratio),)

    def criterion(self, settings: RandomConfig) -> Criterion:
        def scores(
            material: Material, state: PruningState, candidates: Sequence[Candidate]
        ) -> list[float]:
            draw = random.Random(f"{settings.seed} {state.identity()}")
            return [draw.random() for _ in candidates]

        return ScoredBy("random", scores, {"seed": settings.seed})


METHOD = Random()
'''
RANDOM_YAML = """# python launch.py prune=random prune.target_ratio=20 prune.seed=1
method: random
target_ratio: 20.0
seed: 0
"""

LAYERS = '''"""Whole layers, scored once by perplexity."""

from pipeline.criteria.base import Criterion
from pipeline.criteria.perplexity import Perplexity
from pipeline.methods.base import Method
from pipeline.pruning.choice import ONE_SHOT
from pipeline.pruning.phases import Phase
from pipeline.pruning.units import LAYERS
from pipeline.settings.core import PruneConfig


class Layers(Method[PruneConfig]):
    """The layers without which the dense model loses least."""

    name = "layers"
    section = PruneConfig
    choice = ONE_SHOT

    def phases(self, settings: PruneConfig) -> tuple[Phase, ...]:
        return (Phase("layers", LAYERS, settings.target_ratio),)

    def criterion(self, settings: PruneConfig) -> Criterion:
        return Perplexity()


METHOD = Layers()
'''
LAYERS_YAML = """# python launch.py prune=layers prune.target_ratio=20
method: layers
target_ratio: 20.0
"""
TEXT = ("calibration=tokens", "calibration.path=tokens.json")
NOT_THERE = ("calibration=tokens", "calibration.path=not-there.json")
QUIET = ("probe=none", "evaluate=none", "tracking=local")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout.at(tmp_path_factory.mktemp("checkout"))
    checkout.add_method("random", RANDOM, RANDOM_YAML)
    checkout.add_method("layers", LAYERS, LAYERS_YAML)
    return checkout


@pytest.fixture(scope="module")
def random_run(checkout: Checkout) -> MethodRun:
    return checkout.run("random", "prune=random", "prune.target_ratio=20", *NOT_THERE, *QUIET)


@pytest.fixture(scope="module")
def layers_run(checkout: Checkout) -> MethodRun:
    return checkout.run("layers", "prune=layers", "prune.target_ratio=35", *TEXT, *QUIET)


def test_a_random_method_runs_and_says_what_its_scores_are(random_run: MethodRun) -> None:
    assert random_run.summary["status"] == "done"
    assert random_run.summary["ratio_percent"] >= 20
    assert random_run.summary["ppl"] is None
    for step in random_run.steps:
        assert (step["dimension"], step["criterion"]) == ("blocks", "random")
        assert step["score"] == min(entry["score"] for entry in step["candidates"])
        assert not {"importance", "ppl"} & {*step, *step["candidates"][0]}
    metrics = (random_run.folder / "metrics.jsonl").read_text("utf-8")
    assert '"prune/criterion": "random"' in metrics
    assert "prune/importance" not in metrics
    assert (random_run.folder / "report.html").exists()


def test_what_a_criterion_does_not_need_is_not_made(random_run: MethodRun) -> None:
    """Calibration text above all: its file is not even there."""
    assert set(random_run.summary["stages"]) == {"prune"}


def test_another_seed_gives_another_order_and_the_same_one_the_same(
    checkout: Checkout, random_run: MethodRun
) -> None:
    asked = ("prune=random", "prune.target_ratio=25", *NOT_THERE, *QUIET)
    further = checkout.run("further", *asked)
    other = checkout.run("other", *asked, "prune.seed=1")
    assert further.order[: len(random_run.order)] == random_run.order
    assert further.summary["steps_computed"] == len(further.order) - len(random_run.order)
    assert other.summary["steps_computed"] == len(other.order)
    assert other.order != further.order


def test_keys_of_another_method_are_refused(checkout: Checkout) -> None:
    ended = checkout.launch("prune=random", "prune.distribution=[1,0,0]", *NOT_THERE, *QUIET)
    assert ended.returncode == 2
    assert "prune.distribution: means nothing to prune=random; its keys are " in ended.stderr
    unknown = checkout.launch("prune.method=nobody", *TEXT, *QUIET)
    assert unknown.returncode == 2
    assert "prune.method: 'nobody' is not there; allowed: " in unknown.stderr
    assert "layers, multipruner, random" in unknown.stderr


def test_layers_have_the_perplexity_of_a_model_whose_modules_are_silent(
    checkout: Checkout, layers_run: MethodRun
) -> None:
    first = layers_run.steps[0]
    assert [entry["unit"] for entry in first["candidates"]] == ["layer"] * 4
    for entry in first["candidates"]:
        model = AutoModelForCausalLM.from_pretrained(checkout.place / "model").eval()
        silence(model, entry["layer"])
        assert entry["ppl"] == pytest.approx(perplexity(model), rel=1e-5)


def test_layers_that_were_scored_once_go_in_the_order_of_their_scores(
    layers_run: MethodRun,
) -> None:
    first, *rest = layers_run.steps
    ranking = sorted(first["candidates"], key=lambda entry: entry["ppl"])
    assert layers_run.order == [("layer", entry["layer"]) for entry in ranking][: len(rest) + 1]
    assert rest
    assert all(entry["kept"] for step in rest for entry in step["candidates"])
    assert layers_run.summary["candidates_scored"] == len(first["candidates"])
    assert layers_run.summary["status"] == "done"
    assert layers_run.summary["dense_ppl"] > 1


def test_a_plan_of_a_one_shot_method_counts_every_candidate_once(checkout: Checkout) -> None:
    ended = checkout.launch(
        "prune=layers", "prune.target_ratio=30", "plan=json", "store.dir=empty", *TEXT, *QUIET
    )
    assert ended.returncode == 0
    assert '"candidate_evaluations": 4' in ended.stdout


def silence(model: PreTrainedModel, layer: int) -> None:
    """Have the attention and the MLP of a layer add nothing."""
    for module in (model.model.layers[layer].self_attn.o_proj, model.model.layers[layer].mlp):
        module.register_forward_hook(lambda _module, _inputs, out: torch.zeros_like(out))


@torch.no_grad()
def perplexity(model: PreTrainedModel) -> float:
    """Of the first windows of ``write_tokens``; no id in them is the end of the sequence."""
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    losses = nn.functional.cross_entropy(
        model(ids).logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
    )
    return float(losses.mean(dim=1).mean().exp())
