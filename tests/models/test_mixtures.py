"""Mixtures of experts: what they are beyond the matrix of families."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support_families import stock
from support_inputs import MODEL, TINY, problems_of, save_tokenizer, write_jsonl, write_tokens
from torch.testing import assert_close
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, MixtralConfig

import launch
from pipeline.models.families import FAMILIES
from pipeline.models.prunable import PrunableModel, shape_from_config
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.scoring.memory import Budget

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
MIXTURES = ("mixtral", "olmoe", "qwen3_moe")
SETTINGS = ("probe=none", "evaluate=none", "tracking=none", "prune.mlp_group_size=4",
            "prune.attn_group_size=8", "prune.target_ratio=30")  # fmt: skip
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
    config["pruned_mlp_width"]["3"] -= 1
    assert "go whole" in problems_of(lambda: PruningState.from_pruning_config(shape, config))[0]


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


def test_a_launch_says_what_stays_and_does_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = MixtralConfig(**MODEL | {"intermediate_size": 8}, num_local_experts=5)
    save_tokenizer(Path("model"))
    AutoModelForCausalLM.from_config(config).save_pretrained("model")
    rows = torch.randint(60, (3, 12), generator=torch.Generator().manual_seed(0)).tolist()
    write_tokens(Path("tokens.json"), rows, rows[:1])
    write_jsonl(Path("text.jsonl"), [{"text": f"row {i} of a text to learn"} for i in range(40)])

    def launched(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["launch.py", *TINY, *SETTINGS, *arguments])
        return launch.main()

    assert launched("prune.distribution=[1,1,1]") == 2
    assert "its MLPs are mixtures of experts, which go whole" in capsys.readouterr().err
    for order in ("wanda", "taylor"):
        given = ("prune.distribution=[5,0,1]", f"prune.weight_reorder={order}")
        recovery = () if order == "taylor" else (*COMPENSATE, "export=hf")
        assert launched(*given, *recovery, f"run.name={order}") == 0
    run = Path("outputs/runs/wanda")
    units = {json.loads(line)["unit"] for line in (run / "steps.jsonl").read_text().splitlines()}
    assert {"mlp"} <= units <= {"attn", "mlp", "attn_width"}
    assert "active per token" in (run / "report.html").read_text("utf-8")
