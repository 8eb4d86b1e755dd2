"""Mixtures of experts: what they are beyond the matrix of families."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support_families import stock
from support_inputs import (
    MODEL,
    TINY,
    configured,
    problems_of,
    save_tokenizer,
    write_jsonl,
    write_tokens,
)
from torch.testing import assert_close
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, MixtralConfig

import launch
from pipeline.api import open_run
from pipeline.commands.compare import gather
from pipeline.export.hf import write_folder
from pipeline.methods.multipruner import METHOD
from pipeline.models.families import FAMILIES
from pipeline.models.ordering import ChannelOrder
from pipeline.models.packing import PackedModel
from pipeline.models.prunable import PrunableModel, shape_from_config
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import EXPERTS
from pipeline.report.compare.paper_table import paper_table
from pipeline.report.compare.table import to_csv
from pipeline.report.wording import short_count
from pipeline.scoring.memory import Budget
from pipeline.scoring.perplexity import Windows
from pipeline.statistics import gradients
from pipeline.statistics.activations import collect

QWEN_30B = {
    "hidden_size": 2048, "num_hidden_layers": 48, "head_dim": 128, "intermediate_size": 6144,
    "num_attention_heads": 32, "num_key_value_heads": 4,
}  # fmt: skip
PUBLISHED = [
    ("mixtral", {}, 46.7, 12.9),
    ("olmoe", {"intermediate_size": 1024}, 6.9, 1.3),
    ("qwen3_moe", QWEN_30B, 30.5, 3.3),
]
"""Billions of parameters, in total and active, of Mixtral 8x7B, OLMoE 1B-7B and Qwen3-30B-A3B."""
DENSE = ModelShape.repeated(2, None, BlockShape(5000, 1, 10_000, 0), 30_000)
NO_TOKENIZER: Any = SimpleNamespace(tokenizer_files=[], folder=Path("/nowhere"), gguf_file=None)
MIXTURES = ("mixtral", "olmoe", "qwen3_moe")
SETTINGS = (
    "score.enabled=false", "probe=none", "evaluate=none", "tracking=none",
    "prune.mlp_group_size=4", "prune.attn_group_size=8", "prune.target_ratio=30",
)  # fmt: skip
COMPENSATE = (
    "recover=compensate", "recover.compensate.tokens=64", "recover.compensate.guard=false",
    "+recover.calibration.sources.own.path=text.jsonl", "recover.calibration.seqlen=16",
    "recover.calibration.held_out_tokens=32",
)  # fmt: skip


@pytest.mark.parametrize(("model_type", "values", "total", "active"), PUBLISHED)
def test_published_counts_and_their_file(
    model_type: str, values: dict[str, Any], total: float, active: float
) -> None:
    shape = shape_from_config(CONFIG_MAPPING[model_type](**values))
    state = PruningState.dense(shape)
    assert shape.total_params / 1e9 == pytest.approx(total, abs=0.06)  # as makers round
    assert state.active_params / 1e9 == pytest.approx(active, abs=0.06)
    assert ModelShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape
    config = state.to_pruning_config()
    assert PruningState.from_pruning_config(shape, config) == state
    chosen = next(iter(shape.mixtures.values())).least(EXPERTS.name)
    found = state.candidates((EXPERTS,), 2)
    assert [each.layer for each in found] == list(range(len(shape.layers)))
    assert len(state.candidates((EXPERTS,), shape.layers[0].mlp.width - chosen)) == len(found)
    assert not state.candidates((EXPERTS,), shape.layers[0].mlp.width - chosen + 1)


@pytest.mark.parametrize("name", MIXTURES)
def test_groups_of_experts_are_multiplied_as_one_by_one(name: str) -> None:
    one_by_one, at_once = (PrunableModel(stock(name, torch.float32)) for _ in range(2))
    one_by_one.model.set_experts_implementation("eager")
    ids = torch.randint(60, (2, 14))
    with torch.no_grad():
        found, expected = (each.model(ids).logits for each in (at_once, one_by_one))
    assert at_once.text_config._experts_implementation == "grouped_mm"
    assert_close(found, expected)


def test_memory_for_what_a_token_takes_is_planned() -> None:
    models = stock("mixtral"), stock("mixtral")
    for dense, taken in zip(models, (1, 5), strict=True):
        dense.config.num_experts_per_tok = taken
    few, many = map(PrunableModel, models)
    assert [each.blocks[1].working_width for each in (few, many)] == [24 + 32, 5 * (24 + 32)]
    budgets = [Budget.now(each, 64, 1e-4, 0) for each in (few, many)]
    assert budgets[0].rows > budgets[1].rows


def test_more_experts_for_a_token_than_there_are() -> None:
    config = stock("olmoe").config
    config.num_experts_per_tok = 6
    (problem,) = problems_of(lambda: FAMILIES["olmoe"].describe(config))
    assert "num_experts_per_tok is 6; allowed is a number from 1 to 5" in problem


def test_experts_that_stand_in_another_order_answer_the_same() -> None:
    model, dense = PrunableModel(stock("qwen3_moe")), stock("qwen3_moe")
    mixtures = [block for block in model.blocks if block.is_mixture]
    model.reorder(ChannelOrder("any", {b.name: tuple(range(b.groups)) for b in model.blocks}
                               | {b.name: (3, 1, 4, 0, 2) for b in mixtures}))  # fmt: skip
    ids = torch.randint(60, (2, 14))
    with torch.no_grad():
        assert_close(model.model(ids).logits, dense(ids).logits, rtol=1e-6, atol=1e-6)
    norms = dense.model.layers[0].mlp.experts
    of_two = sum(each[2].abs().sum() for each in (norms.gate_up_proj, norms.down_proj))
    assert_close(mixtures[0].expert_norms()[4], of_two.float())


def test_the_router_mass_of_experts_is_what_they_count() -> None:
    model = PrunableModel(stock("mixtral"))
    windows = Windows(torch.randint(60, (3, 8)), None)
    mass = collect(model, windows, 2).of("mlp.0", "router_mass")
    assert mass.sum() == pytest.approx(3 * 8)  # of Mixtral, whose router renormalises
    whole = model.decoder_input(windows.ids)
    block, context = model.blocks[0], whole.contexts[0]
    hidden = model.blocks[1].norm_before(block(whole.hidden, context)).flatten(0, 1)
    _, counts, taken = model.blocks[1].body.gate(hidden)
    assert_close(mass[2], counts[taken == 2].sum(), check_dtype=False)


@pytest.mark.parametrize("name", MIXTURES)
def test_an_ordinary_mixture_is_written_as_others_are_published(name: str, tmp_path: Path) -> None:
    dense = stock(name, torch.float32)
    dense.save_pretrained(tmp_path / "theirs")
    packed = PackedModel.of(PrunableModel(stock(name, torch.float32)), dense.config)
    (tmp_path / "ours").mkdir()
    write_folder(packed, NO_TOKENIZER, tmp_path / "ours", torch.float32, 10**9)
    ours, theirs = (load_file(tmp_path / each / "model.safetensors") for each in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(tensor.equal(theirs[key]) for key, tensor in ours.items())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are launched from, with a tiny Mixtral."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = MixtralConfig(**MODEL | {"intermediate_size": 8}, num_local_experts=5)
    save_tokenizer(Path("model"))
    AutoModelForCausalLM.from_config(config).save_pretrained("model")
    rows = torch.randint(60, (3, 12), generator=torch.Generator().manual_seed(0)).tolist()
    write_tokens(Path("tokens.json"), rows, rows[:1])
    write_jsonl(Path("text.jsonl"), [{"text": f"row {i} of a text to learn"} for i in range(40)])
    Path("other.txt").write_text("The held-out text of a tiny model. " * 4)
    return tmp_path


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def launched(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["launch.py", *TINY, *SETTINGS, *arguments])
        return launch.main()

    return launched


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("prune=flap", "channels go of all experts of a layer at once; prune=multipruner does"),
        ("prune.weight_reorder=false", "those inside experts go by their L1 norms"),
        ("prune.mlp_group_size=8", "a number below 8: the experts of this model's mixtures have 8"),
        ("prune.order=[blocks,mlp_channels,experts,heads]", "experts, which have no share"),
        ("prune.expert_group_size=4", "a number from 1 to 3: this model's mixtures have 5 experts"),
    ],
)
def test_what_cannot_be_had_of_experts_is_told(
    launched: Callable[..., int], capsys: pytest.CaptureFixture[str], given: str, said: str
) -> None:
    share = ["prune.distribution=[1,0,0,1]"] if "expert_group_size" in given else []
    share = ["prune.distribution=[1,0,1]"] if "prune.order" in given else share
    share = ["prune.attn_group_size=8"] if "=flap" in given else share
    assert launched(*share, given) == 2
    assert said in capsys.readouterr().err


def test_a_share_for_experts_of_a_model_without() -> None:
    settings = configured("prune.distribution=[1,0,0,1]").prune
    source: Any = SimpleNamespace(shape=DENSE, layers=(), may_have_mixtures=False)
    (problem,) = METHOD.problems(settings, source)
    assert "its fourth share, 1, is for the experts of a mixture" in problem


def test_blocks_and_heads_alone_go_and_are_compensated(
    place: Path, launched: Callable[..., int]
) -> None:
    given = ("prune.distribution=[5,0,1]", "prune.weight_reorder=wanda", "run.name=run")
    assert launched(*given, *COMPENSATE) == 0
    assert {"mlp"} <= units_of(place, "run") <= {"attn", "mlp", "attn_width"}
    assert "active per token" in (place / "outputs/runs/run/report.html").read_text("utf-8")


def test_gradients_reach_routers_and_experts() -> None:
    model = PrunableModel(stock("mixtral", torch.float32))
    values = gradients.collect(model, Windows(torch.randint(60, (2, 8)), None)).values
    assert values["mlp.1.whole"] > 0
    assert "attn.1.groups" in values
    assert "mlp.1.groups" not in values


def test_groups_of_channels_in_experts_are_what_kernels_take() -> None:
    settings = configured("prune.mlp_group_size=12").prune
    shape = shape_from_config(CONFIG_MAPPING["olmoe"](intermediate_size=96, num_hidden_layers=2))
    source: Any = SimpleNamespace(shape=shape, layers=(), may_have_mixtures=True)
    (problem,) = METHOD.problems(settings, source)
    assert problem.startswith("prune.mlp_group_size: 12 is wrong; allowed is a multiple of 8 below")


def test_channels_in_experts_go_and_the_file_of_what_went_is_read(
    place: Path, launched: Callable[..., int]
) -> None:
    assert launched("prune.distribution=[0,1,0,1]", "run.name=run", "export=hf") == 0
    run = place / "outputs/runs/run"
    assert units_of(place, "run") == {"experts", "expert_width"}
    pruned = json.loads((run / "pruning_config.json").read_text())
    left = {int(layer): width for layer, width in pruned["pruned_expert_width"].items()}
    assert 4 in left.values()
    assert "to 4 of 8 channels" in (run / "report.html").read_text("utf-8")
    opened = AutoModelForCausalLM.from_pretrained(run / "export/hf", trust_remote_code=True)
    found = {
        at: layer.mlp.experts.down_proj.shape[2] for at, layer in enumerate(opened.model.layers)
    }
    assert found == left
    summary = open_run(run).summary
    assert sum(each.numel() for each in opened.parameters()) == summary.params
    experts, config = json.loads((run / "channel_order.json").read_text()), opened.config
    order = {layer: experts["groups"][f"mlp.{layer}"] for layer in left}
    shape = shape_from_config(MixtralConfig.from_pretrained("model"))
    assert PruningState.from_pruning_config(shape, pruned, order).params == summary.params
    pruned["pruned_expert_width"]["0"] = 9
    (problem,) = problems_of(lambda: PruningState.from_pruning_config(shape, pruned, order))
    assert "layer 0 has 9; allowed is a number from 1 to 8" in problem
    assert config.num_hidden_layers == len(left)


def units_of(place: Path, name: str) -> set[str]:
    lines = (place / "outputs/runs" / name / "steps.jsonl").read_text().splitlines()
    return {json.loads(line)["unit"] for line in lines}


def test_experts_go_by_their_order_and_the_file_of_what_went_is_read_with_it(
    place: Path, launched: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for by, reorder, export in (("router", "true", "none"), ("l1", "false", "hf")):
        assert launched(
            "prune.distribution=[0,0,1,9]", f"prune.expert_order={by}", f"run.name={by}",
            f"prune.weight_reorder={reorder}", f"export={export}", "tracking=local",
        ) == 0  # fmt: skip
        assert "experts" in units_of(place, by)
        run = place / "outputs/runs" / by
        groups = json.loads((run / "channel_order.json").read_text())["groups"]
        pruned = json.loads((run / "pruning_config.json").read_text())
        for layer, gone in pruned["pruned_experts"].items():
            left = pruned["pruned_mlp_width"][layer]
            assert gone == sorted(groups[f"mlp.{layer}"][left:])
            assert left >= 2
        assert any(pruned["pruned_experts"].values())
    opened = AutoModelForCausalLM.from_pretrained(run / "export/hf", trust_remote_code=True)
    assert sum(each.numel() for each in opened.parameters()) == open_run(run).summary.params
    runs = gather([str(run)], None)[0].runs
    active = runs[0].active_params(pruned=True)
    assert f",{active}," in to_csv(runs).splitlines()[1]
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["prune/active_params"] for row in logged if "prune/step" in row][-1] == active
    cells = {cell.text for rows in paper_table(runs).blocks for row in rows for cell in row}
    assert {f"{short_count(runs[0].params)}, {short_count(active)} active"} <= cells
    given = (
        f"evaluate.pruning_config={run}/pruning_config.json", "evaluate.text=other.txt",
        "evaluate.seqlen=16",
    )  # fmt: skip
    assert launched(*given, "run.name=given") == 0
    (run / "channel_order.json").unlink()
    capsys.readouterr()
    assert launched(*given, "run.name=without") == 2
    assert "put the channel_order.json of that run beside it" in capsys.readouterr().err
