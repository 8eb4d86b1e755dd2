"""A run ends with a model that opens elsewhere; a finished run gives one later."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support_inputs import (
    A_FIFTH,
    MODEL,
    TINY,
    problems_of,
    raw,
    save_model,
    save_tokenizer,
    write_tokens,
)
from transformers import AutoModelForCausalLM, Olmo2Config, Qwen3Config, Qwen3ForCausalLM

import launch
from pipeline.commands.cli import main as multipruner
from pipeline.errors import StageError
from pipeline.export.publish import publish
from pipeline.models.loading import load
from pipeline.models.source import locate
from pipeline.report.compare.records import read_run
from pipeline.report.compare.table import rows

ARGUMENTS = (
    *TINY,
    *A_FIFTH,
    "run.dir=run",
    "score.enabled=false",
)
Run = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("warm")  # exports are opened in a process of their own


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with a tokenizer, and calibration tokens, all tiny."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    save_tokenizer(save_model(tmp_path / "model", num_hidden_layers=3))
    write_tokens(tmp_path / "tokens.json", [list(range(5, 25))] * 2, [list(range(5, 25))])
    return tmp_path


@pytest.fixture
def run(place: Path) -> Run:
    def run(*overrides: str) -> dict[str, Any]:
        launch.run(raw(*ARGUMENTS, *overrides), [])
        folder = next((o[8:] for o in overrides if o.startswith("run.dir=")), "run")
        return json.loads((place / folder / "summary.json").read_text())

    return run


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["multipruner", *arguments])
    return multipruner()


def test_a_run_ends_with_models_that_were_opened_elsewhere(place: Path, run: Run) -> None:
    summary = run("export=[hf,vllm]")
    told = summary["exports"]["hf"]
    assert told["logits_differ_by"] <= 1e-5
    folder = place / "run" / "export" / "hf"
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    card = (folder / "README.md").read_text()
    assert "Parameters" in card
    assert str(place) not in card
    assert (folder / "report.png").exists()
    assert (folder / "tokenizer.json").exists()
    assert json.loads((folder / "pruning_config.json").read_text()) == json.loads(
        (place / "run" / "pruning_config.json").read_text()
    )
    assert (place / "run" / "export" / "vllm" / "configuration_decilm.py").exists()
    assert not list((place / "run" / "export").glob(".*"))
    again = run("export=[hf,vllm]")
    assert {again["stages"][f"export_{name}"]["status"] for name in ("hf", "vllm")} == {"reused"}


def test_a_finished_run_gives_its_model_without_running_again(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run()
    assert summary["exports"] == {}
    assert command(monkeypatch, "export", "run", "--to", "hf", "--out", "out",
                   "--set", "export.pad=true") == 0  # fmt: skip
    assert "  Opened in another process and compared" in capsys.readouterr().out
    config = json.loads((place / "out" / "hf" / "config.json").read_text())
    assert config["model_type"] == "llama"
    AutoModelForCausalLM.from_pretrained(place / "out" / "hf")
    after = json.loads((place / "run" / "summary.json").read_text())
    assert after["candidates_scored"] == 0
    assert after["status"] == "done"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "hf,nope"), "--to: 'nope' is not there; allowed: "),
        (("--to", "hf", "--set", "foo=1"), "--set: 'foo=1' is wrong"),
        (
            ("--to", "hf", "--set", "export.hf.dtype=float8"),
            "export.hf.dtype: 'float8' is wrong; allowed is 'float32', 'float16' or 'bfloat16'",
        ),
        (("--to", "hf", "--out", "taken"), "taken/hf is there, and is no export of this run"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_and_nothing_is_written(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    run()
    (place / "taken" / "hf").mkdir(parents=True)
    capsys.readouterr()
    assert command(monkeypatch, "export", "run", *arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not list(place.rglob("*.safetensors.*"))
    assert [path.name for path in (place / "taken").rglob("*")] == ["hf"]


def test_a_taken_folder_is_told_before_anything_is_computed(place: Path) -> None:
    (place / "mine" / "hf").mkdir(parents=True)
    (problem,) = problems_of(
        lambda: launch.run(raw(*ARGUMENTS, "export=hf", "export.dir=mine"), [])
    )
    assert problem.startswith("export.dir: mine/hf is there")
    assert not (place / "outputs").exists()


def test_a_family_that_cannot_be_expressed_is_told_before_anything_is_computed(
    place: Path,
) -> None:
    Qwen3ForCausalLM(Qwen3Config(**MODEL, head_dim=4)).save_pretrained(place / "model")

    def problems(*overrides: str) -> list[str]:
        arguments = raw(*ARGUMENTS, "export=gguf", *overrides)
        return problems_of(lambda: launch.run(arguments, []))

    (problem,) = problems()
    assert problem.startswith("export.gguf: GGUF cannot express a qwen3 model with layers that d")
    assert "take export=hf, or export.pad=true" in problem
    assert not (place / "outputs").exists()
    for alike in ("export.pad=true", "prune.distribution=[100,0,0]"):
        assert all("tokenizer" in problem for problem in problems(alike)), "the layers are no issue"


def test_zeros_that_a_norm_would_notice_are_told_before_anything_is_computed(place: Path) -> None:
    AutoModelForCausalLM.from_config(Olmo2Config(**MODEL)).save_pretrained(place / "model")
    heads_go = ("export=hf", "export.pad=true", "prune.distribution=[40,40,20]")
    (problem,) = problems_of(lambda: launch.run(raw(*ARGUMENTS, *heads_go), []))
    assert problem.startswith("export.pad: q_norm and k_norm of these models norm all heads at")
    assert not (place / "outputs").exists()


def test_a_full_disk_is_told_before_the_weights_are_written(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr("pipeline.stages.export.shutil.disk_usage", lambda _: full)
    with pytest.raises(StageError, match="the exported model needs"):
        run("export=hf")
    assert not (place / "run" / "export").exists()


def test_a_model_that_answers_otherwise_is_not_published(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StageError("the exported model answers otherwise")

    monkeypatch.setattr("pipeline.export.opened.check", refuse)
    with pytest.raises(StageError, match="answers otherwise"):
        run("export=hf")
    assert not (place / "run" / "export").exists()
    assert not list(place.glob("outputs/store/stages/export_hf/*/model"))


def test_killed_at_any_moment_no_folder_looks_whole(place: Path) -> None:
    """See also benchmarks/kills.py --export hf."""
    files, folder = place / "files", place / "export"
    files.mkdir()
    for number in range(40):
        (files / str(number)).write_bytes(b"weights" * 1000)
    moments, left = random.Random(0), 0
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            publish(files, folder, {"README.md": b"card"}, "run", {})
            os._exit(0)
        time.sleep(moments.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        left += os.waitpid(pid, 0)[1] == signal.SIGKILL
        names = {path.name for path in folder.glob("*")}
        assert len(names) in (0, 42), names
    assert left > 5
    leftovers = list(place.glob(".export.*"))
    assert leftovers
    for path in leftovers:
        os.utime(path, (0, 0))
    publish(files, folder, {"README.md": b"card"}, "run", {})
    assert len(list(folder.iterdir())) == 42
    assert not list(place.glob(".export.*"))


@pytest.mark.usefixtures("warm")
def test_a_model_that_was_pruned_before_tells_what_is_gone_of_the_first_one(
    place: Path, run: Run
) -> None:
    first = run("export=hf")
    assert (first["model"], first["origin"]) == ("model", None)
    exported = place / "run" / "export" / "hf"
    (exported / "modeling_pruned.py").write_text("raise SystemExit('is never run')")
    (place / "notes.txt").write_text("A note. " * 20)
    measured = ("evaluate.text=notes.txt", "evaluate.seqlen=8")
    again = run("model.path=run/export/hf", "run.dir=again", "prune.target_ratio=10", *measured)
    assert again["origin"] == {"name": "model", "params": first["total_params"]}
    assert again["total_params"] < first["total_params"]
    removed = (1 - first["params"] / first["total_params"]) * 100
    assert again["model"] == f"model-{removed:.0f}pct"
    assert "Removed of model" in (place / "again" / "report.html").read_text()
    dense, _, pruned = rows([read_run(place / "run"), read_run(place / "again")])
    gone = [(1 - again[of] / first["total_params"]) * 100 for of in ("total_params", "params")]
    assert dense.cells[0].text == f"dense {again['model']}"
    assert dense.cells[1].text == f"0 % ({gone[0]:.1f} % of model)"
    assert pruned.cells[1].text.endswith(f" % ({gone[1]:.1f} % of model)")
    _opens_without_this_projects_words(exported)


def _opens_without_this_projects_words(exported: Path) -> None:
    """Per-layer widths as other programs of transformers write them: of the stock family."""
    config = json.loads((exported / "config.json").read_text())
    del config["auto_map"]
    (exported / "modeling_pruned.py").unlink()
    ids = torch.tensor([list(range(5, 25))])
    logits = []
    for model_type in ("pruned_llama", "llama"):
        (exported / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
        source = locate(str(exported), None, None)
        logits.append(load(source, "float32", "cpu", "sdpa").model(ids).logits)
    assert torch.equal(*logits)


def test_the_live_model_does_not_save_itself(place: Path) -> None:
    model = load(locate(str(place / "model"), None, None), "float32", "cpu", "sdpa")
    with pytest.raises(StageError, match="multipruner export"):
        model.model.save_pretrained(place / "saved")
    assert not (place / "saved").exists()


def test_a_published_pruning_config_is_exported_without_pruning(place: Path, run: Run) -> None:
    write_tokens(place / "tokens.json")  # shorter than what is decoded one by one
    run("export=hf")
    first = load_file(place / "run" / "export" / "hf" / "model.safetensors")
    (place / "text.txt").write_text("Some text to evaluate a tiny model on. " * 4)
    given = place / "run" / "pruning_config.json"
    run(f"evaluate.pruning_config={given}", "export=hf", "run.dir=other", "store.dir=empty",
        "evaluate.text=text.txt", "evaluate.seqlen=16")  # fmt: skip
    second = load_file(place / "other" / "export" / "hf" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
