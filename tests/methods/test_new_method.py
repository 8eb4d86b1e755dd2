"""The methods of ``docs/methods.md``: each is one file and one yaml, and does what it says."""

import re

import pytest
import torch
from support_inputs import REPOSITORY
from support_methods import Checkout, Launched
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

TEXT = ("calibration=tokens", "calibration.path=tokens.json")
NO_TEXT = ("calibration=tokens", "calibration.path=not-there.json")
QUIET = ("probe=none", "evaluate=none", "tracking=local")
DEEPEST = ("prune=deepest", *NO_TEXT, *QUIET)
LAYERS = ("prune=layers", *TEXT, *QUIET)
LAUNCHES = {
    "deepest": (*DEEPEST, "prune.target_ratio=20"),
    "further": (*DEEPEST, "prune.target_ratio=25"),
    "other-end": (*DEEPEST, "prune.target_ratio=25", "prune.from_input=true"),
    "wrong-key": (*DEEPEST, "prune.distribution=[1,0,0]"),
    "paper-key": (*DEEPEST, "+paper=llama2_7b", "model.path=model", "plan=true"),
    "wrong-method": ("prune.method=nobody", *TEXT, *QUIET),
    "plan": (*LAYERS, "prune.target_ratio=35", "plan=json"),
    "layers": (*LAYERS, "prune.target_ratio=35"),
}

pytestmark = pytest.mark.xdist_group("a new method")  # they share what takes long to make


def files_of_the_page() -> dict[str, str]:
    """The files that ``docs/methods.md`` shows, by path."""
    page = (REPOSITORY / "docs" / "methods.md").read_text("utf-8")
    shown = re.findall(r"`([^`\n]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 4
    return dict(shown)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, python: str) -> Checkout:
    checkout = Checkout.at(tmp_path_factory.mktemp("checkout"), python)
    for path, content in files_of_the_page().items():
        checkout.add_file(path, content)
    return checkout


@pytest.fixture(scope="module")
def launched(checkout: Checkout) -> dict[str, Launched]:
    return checkout.launch(LAUNCHES)


def test_a_method_runs_and_says_what_its_scores_are(launched: dict[str, Launched]) -> None:
    run = launched["deepest"]
    assert (run.status, run.errors) == (0, "")
    assert run.summary["status"] == "done"
    assert run.summary["ratio_percent"] >= 20
    assert run.summary["ppl"] is None
    for step in run.steps:
        assert (step["dimension"], step["criterion"]) == ("blocks", "depth")
        assert step["score"] == min(entry["score"] for entry in step["candidates"])
        assert not {"importance", "ppl"} & {*step, *step["candidates"][0]}
    metrics = (run.folder / "metrics.jsonl").read_text("utf-8")
    assert '"prune/criterion": "depth"' in metrics
    assert "prune/importance" not in metrics
    assert (run.folder / "report.html").exists()


def test_what_a_criterion_does_not_need_is_not_made(launched: dict[str, Launched]) -> None:
    """Calibration text above all: its file is not even there."""
    assert set(launched["deepest"].summary["stages"]) == {"prune"}


def test_a_higher_target_goes_on_from_the_steps_that_are_there(
    launched: dict[str, Launched],
) -> None:
    first, further = launched["deepest"], launched["further"]
    assert further.order[: len(first.order)] == first.order
    assert further.summary["steps_computed"] == len(further.order) - len(first.order)


def test_another_setting_of_the_criterion_gives_another_order(
    launched: dict[str, Launched],
) -> None:
    other = launched["other-end"]
    assert other.summary["steps_computed"] == len(other.order)
    assert other.order != launched["further"].order


def test_a_typed_key_of_another_method_is_refused(launched: dict[str, Launched]) -> None:
    ended = launched["wrong-key"]
    assert ended.status == 2
    assert "prune.distribution: means nothing to prune=deepest; its keys are " in ended.errors


def test_a_key_that_the_papers_settings_have_for_another_method_is_left_out(
    launched: dict[str, Launched],
) -> None:
    assert (launched["paper-key"].status, launched["paper-key"].errors) == (0, "")


def test_a_method_that_is_not_there_is_named(launched: dict[str, Launched]) -> None:
    ended = launched["wrong-method"]
    assert ended.status == 2
    assert "prune.method: 'nobody' is not there; allowed: " in ended.errors
    assert {"layers", "multipruner", "deepest"} <= set(
        ended.errors.strip().rpartition("allowed: ")[2].split(", ")
    )


def test_layers_have_the_perplexity_of_a_model_whose_modules_are_silent(
    checkout: Checkout, launched: dict[str, Launched]
) -> None:
    first = launched["layers"].steps[0]
    assert [entry["unit"] for entry in first["candidates"]] == ["layer"] * 4
    for entry in first["candidates"]:
        model = AutoModelForCausalLM.from_pretrained(checkout.place / "model").eval()
        silence(model, entry["layer"])
        assert entry["ppl"] == pytest.approx(perplexity(model), rel=1e-5)


def test_layers_that_were_scored_once_go_in_the_order_of_their_scores(
    launched: dict[str, Launched],
) -> None:
    run = launched["layers"]
    assert (run.status, run.errors) == (0, "")
    first, *rest = run.steps
    ranking = sorted(first["candidates"], key=lambda entry: entry["ppl"])
    assert run.order == [("layer", entry["layer"]) for entry in ranking][: len(rest) + 1]
    assert rest
    assert all(entry["kept"] for step in rest for entry in step["candidates"])
    assert run.summary["candidates_scored"] == len(first["candidates"])
    assert run.summary["dense_ppl"] > 1


def test_a_plan_counts_what_is_scored_once_only_once(launched: dict[str, Launched]) -> None:
    assert launched["plan"].status == 0
    assert '"candidate_evaluations": 4' in launched["plan"].out


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
