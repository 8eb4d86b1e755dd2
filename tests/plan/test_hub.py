"""Models and data of a hub: what a run reads of it stays as it was at its launch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from support_hub import Hub
from support_inputs import (
    REPOSITORY,
    configured,
    edit_weights,
    problems_of,
    save_model,
    save_tokenizer,
    write_tokens,
)

from pipeline.commands.cli import main as multipruner
from pipeline.executors.local import Local
from pipeline.executors.submission import Submission
from pipeline.jobs import launching
from pipeline.jobs.job import check_unchanged
from pipeline.plan.preflight import check
from pipeline.plan.run import Run
from pipeline.plan.sweep import reopened
from pipeline.screen import screen
from pipeline.store.processes import Process

MODEL = ("model=hf", "model.path=acme/tiny", "model.device=cpu")
TOKENS = ("calibration=tokens", "calibration.path=tokens.json")
SMALL = ("prune.target_ratio=20", "prune.mlp_group_size=4", "prune.attn_group_size=8")
ARGUMENTS = (*MODEL, *TOKENS, *SMALL, "score.enabled=false")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with tokenizer."""
    return save_tokenizer(save_model(tmp_path_factory.mktemp("saved") / "model"))


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the model, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    write_tokens(tmp_path / "tokens.json")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")  # given back as they were
    with Hub() as hub:
        of_hub = "huggingface_hub.constants."
        monkeypatch.setattr(f"{of_hub}ENDPOINT", hub.endpoint)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{of_hub}HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{of_hub}HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{of_hub}HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        hub.push("acme/tiny", saved)
        yield hub


def push_another(hub: Hub, saved: Path, folder: Path) -> str:
    """Push a model with other weights; the commit."""
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    edit_weights(folder, lambda weights: weights.update({k: -v for k, v in weights.items()}))
    return hub.push("acme/tiny", folder)


def prepared(*overrides: str) -> Run:
    """A run as it is launched."""
    config = configured(*ARGUMENTS, *overrides)
    return Run.prepare(config, check(config))


def test_a_push_between_launch_and_job_changes_nothing(
    hub: Hub, saved: Path, tmp_path: Path
) -> None:
    run = prepared("run.name=here")
    run.claim()
    first = run.source.revision
    (tmp_path / "pushed").mkdir()
    second = push_another(hub, saved, tmp_path / "pushed")
    hub.asked.clear()

    again = Run.open(run.folder.path)
    assert (again.source.revision, again.config.model.revision) == (first, first)
    assert {s.name: s.key for s in again.plan.stages} == {s.name: s.key for s in run.plan.stages}
    launching.run_here(again, screen(is_quiet=True))
    assert not [request for request in hub.asked if "main" in request or second in request]

    local = prepared(f"model.path={saved}", "run.name=local")
    launching.run_here(local, screen(is_quiet=True))
    here, there = (Path("outputs/runs", name, "steps.jsonl") for name in ("here", "local"))
    assert here.read_text() == there.read_text()

    other = prepared()
    assert other.source.revision == second
    (problem,) = problems_of(lambda: prepared("run.name=here"))
    assert f"(model.revision is {first!r} there and {second!r} here)" in problem


def test_a_run_that_failed_is_retried_after_a_push(
    hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(_self: Local, submission: Submission, *_: object) -> None:
        with subprocess.Popen(["/bin/sleep", "10"]) as process:
            submission.record_job(str(process.pid), Process.of(process.pid))
            process.kill()

    monkeypatch.setattr(Local, "submit", submit)
    run = prepared("run.name=here", "cluster=local")
    launching.carry_out([run], screen(is_quiet=True))
    (tmp_path / "pushed").mkdir()
    push_another(hub, saved, tmp_path / "pushed")
    assert multipruner(["retry", "here"]) == 0
    submissions = [
        Submission(path.parent) for path in Path("outputs/store").rglob("submission.json")
    ]
    assert len(submissions) == 2
    for submission in submissions:
        (again,) = reopened([Path(submission.task(0).run)])
        check_unchanged(again, submission.task(0), needs_all=False)


def told_wrong(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a command has said to be wrong, below the hub's progress."""
    lines = capsys.readouterr().err.splitlines()
    return [line.strip() for line in lines[lines.index("wrong:") + 1 :]]


WIKITEXT_CARD = b"""---
configs:
- config_name: wikitext-2-raw-v1
  data_files: [{split: test, path: test.jsonl}]
---
"""


def rows(name: str) -> bytes:
    """A data set's file of 300 rows."""
    return "".join(json.dumps({"text": f"{name} {i}\n"}) + "\n" for i in range(300)).encode()


def test_what_a_sweep_needs_is_fetched_and_then_found_without_the_hub(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["multipruner"])
    test = {"README.md": WIKITEXT_CARD, "test.jsonl": rows("wikitext")}
    hub.push("datasets/Salesforce/wikitext", test)
    hub.push("datasets/tatsu-lab/alpaca", {"train.jsonl": rows("alpaca")})
    amounts = ("calibration.block_samples=4", "calibration.width_samples=4")
    arguments = (*MODEL, *SMALL, *amounts, "calibration.seqlen=16")
    offline = ("cluster=local", "cluster.offline=true")

    assert multipruner(["prefetch", *arguments, "-m", "calibration=alpaca,wikitext2"]) == 0
    fetched = [
        f"fetching model.path: acme/tiny@{hub.latest('acme/tiny')}",
        "fetching calibration.dataset: alpaca",
        "fetching calibration.dataset: wikitext2",
    ]
    told = capsys.readouterr().out.splitlines()
    assert told == [*fetched, "everything is in the cache; launch with cluster.offline=true"]

    hub.asked.clear()
    chosen = ("calibration=alpaca", "calibration=wikitext2", "calibration=c4")
    configs = [configured(*arguments, text, *offline) for text in chosen]
    launching.go_offline(configs)
    for config in configs[:2]:
        check(config)
    (problem,) = problems_of(lambda: check(configs[2]))
    assert problem.startswith("calibration.dataset: c4 is not in the cache: ")
    assert problem.endswith("type: multipruner prefetch with the same arguments")
    assert hub.asked == []


def test_what_the_hub_does_not_have_is_told_at_once(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["multipruner"])
    sweep = ("--multirun", *MODEL, "calibration=alpaca,wikitext2", "prune.target_ratio=5,10")
    assert multipruner(["prefetch", *sweep]) == 2
    alpaca, wikitext = told_wrong(capsys)
    assert alpaca.startswith("calibration.dataset: alpaca is not in the cache: ")
    assert wikitext.startswith("calibration.dataset: wikitext2 is not in the cache: ")
    assert multipruner(["prefetch", "model=hf", "model.path=acme/nothing", *TOKENS]) == 2
    (problem,) = told_wrong(capsys)
    assert problem.startswith("model.path: acme/nothing is no folder here, and the hub does not")
    assert multipruner(["prefetch", "-m", "prune.target_ratio=10,200"]) == 2
    (problem,) = told_wrong(capsys)
    assert problem.startswith("prune.target_ratio: 200 is wrong")


def test_a_sweep_is_composed_wherever_the_command_is_installed(tmp_path: Path) -> None:
    (tmp_path / "pipeline").symlink_to(REPOSITORY / "pipeline")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.commands.cli", "prefetch", "-m", "prune.target_ratio=0,1"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("prune.target_ratio: 0 is wrong")) == (2, 1)


def test_a_retry_is_checked_as_a_launch_is(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = []
    monkeypatch.setattr(Local, "submit", lambda *_: submitted.append(1))
    for name in ("one", "two"):
        launching.carry_out([prepared(f"run.name={name}", "cluster=local")], screen(is_quiet=True))
    assert len(submitted) == 1
    listed = [{"run": f"{Path.cwd()}/outputs/runs/{name}"} for name in ("one", "two")]
    Path("outputs/sweeps/both").mkdir(parents=True)
    Path("outputs/sweeps/both/sweep.json").write_text(json.dumps({"runs": listed}))
    Path("tokens.json").unlink()
    assert multipruner(["retry", "both"]) == 2
    assert told_wrong(capsys) == ["calibration.path: tokens.json does not exist"]
    assert len(submitted) == 1
