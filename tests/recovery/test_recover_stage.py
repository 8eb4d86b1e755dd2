"""Runs that recover: what is stored, shared, evaluated and exported of the model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support_inputs import (
    A_FIFTH,
    CHARACTERS,
    TINY,
    problems_of,
    raw,
    save_model,
    save_tokenizer,
    write_jsonl,
)

import launch
from pipeline.api import open_run
from pipeline.errors import ConfigError, StageError

ARGUMENTS = (
    *TINY,
    "calibration=text",
    "calibration.path=text.jsonl",
    "calibration.seqlen=16",
    "calibration.block_windows=2",
    "calibration.width_windows=1",
    *A_FIFTH,
    "run.dir=run",
    "run.pictures=[]",
    "evaluate.text=other.txt",
    "evaluate.seqlen=16",
)
COMPENSATE = (
    "recover=compensate",
    "recover.compensate.mode=scalar",
    "recover.compensate.guard=false",
    "recover.compensate.tokens=64",
    "+recover.calibration.sources.own.path=text.jsonl",
    "recover.calibration.seqlen=16",
    "recover.calibration.held_out_tokens=32",
)
Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    save_tokenizer(save_model(tmp_path / "model", num_hidden_layers=3))
    rows = [{"text": f"row {i} of a text that is learnt from"} for i in range(40)]
    write_jsonl(tmp_path / "text.jsonl", rows)
    (tmp_path / "other.txt").write_text("The held-out text of a tiny model. " * 4)
    return tmp_path


@pytest.fixture
def run() -> Run:
    def launched(*overrides: str) -> dict[str, Any]:
        config = raw(*ARGUMENTS, *overrides)
        launch.run(config, [])
        return json.loads(Path(config.run.dir, "summary.json").read_text())

    return launched


@pytest.mark.usefixtures("warm")
def test_a_recovered_model_is_stored_evaluated_and_exported_as_what_it_is(run: Run) -> None:
    done = run(*COMPENSATE, "export=hf")
    assert [name for name in done["stages"] if name.startswith("recover")] == ["recover_compensate"]
    (folder,) = Path("outputs/store/stages/recover_compensate").iterdir()
    values = load_file(folder / "weights.safetensors")
    facts = json.loads((folder / "recovery.json").read_text())
    assert values
    assert all(name.endswith(("o_proj.weight", "down_proj.weight")) for name in values)
    assert facts["changed"]
    assert len(values) <= 6

    evaluation = json.loads(Path("run", "evaluation.json").read_text())
    assert list(evaluation)[:3] == ["dense", "pruned", "recovered"]
    perplexities = {side: evaluation[side]["texts"][0]["ppl"] for side in list(evaluation)[:3]}
    assert len(set(perplexities.values())) == 3
    assert evaluation["recovered"]["params"] == evaluation["pruned"]["params"]

    own = open_run("run").model()
    weights = {name: each for name, each in own.named_parameters() if each.shape != ()}
    exported = load_file(next(Path("run", "export", "hf").glob("*.safetensors")))
    for value in values.values():
        assert any(torch.equal(value, each) for each in weights.values())
        assert any(torch.equal(value, each) for each in exported.values())


def test_a_run_that_recovers_shares_every_step_and_a_second_launch_computes_nothing(
    run: Run,
) -> None:
    plain = run("run.dir=plain", "score.enabled=false")
    first = run(*COMPENSATE, "score.enabled=false")
    again = run(*COMPENSATE, "score.enabled=false")
    assert plain["steps_computed"] > 0
    assert first["steps_computed"] == 0
    assert first["states_measured"] == 1, "the recovered model; the others were measured before"
    assert {stage["status"] for stage in again["stages"].values()} == {"reused"}
    assert again["states_measured"] == 0
    for name in ("steps.jsonl", "pruning_config.json"):
        assert Path("plain", name).read_bytes() == Path("run", name).read_bytes()


def test_rows_that_decisions_were_made_on_are_not_learnt_from(run: Run) -> None:
    run(*COMPENSATE, "evaluate=none")
    (folder,) = Path("outputs/store/stages/recover_compensate").iterdir()
    rows = json.loads((folder / "recovery.json").read_text())["rows"]
    (tokens,) = Path("outputs/store/stages/calibrate").iterdir()
    text = json.loads((tokens / "recipe.json").read_text())
    assert text["block_windows"] == 2
    assert set(rows) == {"own", "own, held out"}
    assert not set(rows["own"]) & set(rows["own, held out"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["recover.steps=[compensat]"], "recover.steps: compensat is no technique; known are comp"),
        (["recover.steps=[compensate,compensate]"], "compensate is there twice"),
        (
            ["+recover.calibration.sources.b={dataset: text}"],
            "recover.calibration.sources.b.path: dataset text needs a local file",
        ),
        (
            ["recover.calibration.sources.own.path=nowhere.txt"],
            "recover.calibration.sources.own.path: nowhere.txt does not exist",
        ),
        (
            ["recover.calibration.sources.own.path=other.txt"],
            "other.txt is also what is evaluated on as evaluate.texts.other.txt",
        ),
        (
            ["+recover.calibration.sources.own.field=body"],
            "own.path: text.jsonl, line 1 has no text in the field 'body' (it has text); name the "
            "field as recover.calibration.sources.own.field",
        ),
        (["recover.steps=compensate"], "allowed is a list, e.g. [compensate]"),
        (
            ["recover.calibration.seqlen=100000"],
            "recover.calibration.seqlen: 100000 tokens are longer than the model's context",
        ),
        (
            ["recover.calibration.sources.own.path=few.txt"],
            "tokens are left after what was taken before, e.g. as held-out text, and 16 are needed",
        ),
        (
            ["+export.hf.enabled=true", "export.dir=few.txt"],
            "export.dir: few.txt/hf cannot be made: ",
        ),
    ],
)
def test_bad_input_is_named_before_anything_runs(run: Run, overrides: list[str], said: str) -> None:
    Path("few.txt").write_text("few", encoding="utf-8")
    (problem,) = problems_of(lambda: run(*COMPENSATE, *overrides))
    assert said in problem
    assert not Path("run").exists()


def test_text_whose_tokens_the_model_does_not_have_is_refused(run: Run, place: Path) -> None:
    few = len(CHARACTERS) // 2
    shutil.rmtree(place / "model")
    save_tokenizer(save_model(place / "model", num_hidden_layers=3, vocab_size=few))
    known = "".join(CHARACTERS[2:few])
    write_jsonl(place / "text.jsonl", [{"text": known * 2}] * 40)
    write_jsonl(place / "other.jsonl", [{"text": "".join(CHARACTERS[few:]) * 2}] * 40)
    learns = "recover.calibration.sources.own.path=other.jsonl"
    with pytest.raises(ConfigError, match="not in the model's vocabulary"):
        run(*COMPENSATE, learns, "evaluate.text=null")


def test_the_model_of_a_run_that_did_not_recover_is_not_given(run: Run) -> None:
    run(*COMPENSATE, "evaluate=none")
    (folder,) = Path("outputs/store/stages/recover_compensate").iterdir()
    shutil.rmtree(folder)
    with pytest.raises(StageError, match=r"run is not finished \(recover_compensate\); see: mult"):
        open_run("run").model()
