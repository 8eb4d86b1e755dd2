"""A run whose stages are jobs, which are preempted, killed and cut off: one story in W&B."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import TINY, configured, save_model, save_tokenizer, write_jsonl, write_tokens
from wandb_server import WandbServer
from wandb_support import (
    REPO,
    Json,
    of_type,
    offline_folders,
    records,
    rows,
    steps,
    steps_sent,
    wait_for,
)

from pipeline.commands.cli import main as multipruner
from pipeline.files import encode, replace
from pipeline.plan.preflight import check
from pipeline.plan.run import Run

pytest.importorskip("wandb")

JOB = Path(__file__).with_name("job_of_run.py")
ARGUMENTS = (
    *TINY,
    "run.pictures=[png]",
    "prune.target_ratio=35",
    "prune.distribution=[20,80,0]",
    "prune.mlp_group_size=8",
    "prune.attn_group_size=8",
    "cluster=local",
    "tracking=wandb",
    "tracking.entity=team",
    "tracking.tags=[mine,alpha]",
    "score.enabled=false",
    "evaluate.tasks=[letters]",
    "evaluate.text=text.txt",
    "evaluate.seqlen=16",
    "+evaluate.task_files.letters=letters.jsonl",
    "sweep.name=ratios",
)
NAME = "model 35% 20:80:0 tokens"


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    save_tokenizer(save_model(tmp_path / "model", num_hidden_layers=3, intermediate_size=64))
    write_tokens(tmp_path / "tokens.json")
    (tmp_path / "text.txt").write_text("The held-out text of a tiny model. " * 4)
    choices = [{"context": "ab", "choices": ["c", "zz", "y"], "label": i % 3} for i in range(6)]
    write_jsonl(tmp_path / "letters.jsonl", choices)


def prepared(*overrides: str) -> Path:
    config = configured(*ARGUMENTS, *overrides)
    run = Run.prepare(config, check(config))
    run.claim()
    return run.folder.path


def start(run: Path, *stages: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    log = run / "job.log"
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, str(JOB), str(run), *stages],
            env=environment, stdout=stream, stderr=stream,
        )  # fmt: skip


def finish(run: Path, *stages: str) -> None:
    with start(run, *stages) as job:
        assert job.wait(120) == 0, (run / "job.log").read_text()


def disturb(run: Path, by: signal.Signals, after: int) -> int:
    """Start the pruning job, and send it a signal when the run has ``after`` rows."""
    with start(run, "calibrate", "prune") as job:
        wait_for(lambda: job.poll() is not None or len(logged(run)) >= after, 60)
        assert job.poll() is None, (run / "job.log").read_text()
        job.send_signal(by)
        return job.wait(60)


def logged(run: Path) -> list[Any]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line)["prune/step"] for line in path.read_text("utf-8").splitlines()]


def all_steps(run: Path) -> list[int]:
    count = json.loads((run / "summary.json").read_text("utf-8"))["steps"]
    assert logged(run)[-1] == count
    return logged(run)


def merged_summary(pieces: list[list[Json]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for piece in pieces:
        for summary in of_type(piece, "summary"):
            merged |= summary.get("update", {})
    return merged


EVALUATED = {
    f"evaluate/{which}_{value}"
    for which in ("dense", "pruned")
    for value in ("ppl", "accuracy", "accuracy_letters", "stderr_letters")
}


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_offline_logs_of_disturbed_jobs_hold_every_step_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared()
    assert disturb(run, signal.SIGUSR2, after=2) == 3
    assert disturb(run, signal.SIGKILL, after=5) == -signal.SIGKILL
    finish(run, "calibrate", "prune")
    finish(run, "dense", "evaluate")

    pieces = [records(folder) for folder in offline_folders(run)]
    assert len(pieces) == 4
    preempted, killed, pruned, evaluated = pieces
    found = [step for piece in pieces for step in steps(piece)]
    assert found == all_steps(run)
    assert len(steps(preempted)) >= 2
    kinds = [record["type"] for record in preempted]
    assert kinds.index("preempting") < kinds.index("exit")
    assert of_type(killed, "exit") == []
    assert [of_type(piece, "preempting") for piece in (pruned, evaluated)] == [[], []]
    heads = [of_type(piece, "run")[0] for piece in pieces]
    assert len({head["run_id"] for head in heads}) == 1
    assert [head["job_type"] for head in heads] == ["prune", "prune", "prune", "evaluate"]
    assert {(head["display_name"], head["run_group"]) for head in heads} == {(NAME, "ratios")}
    assert heads[0]["tags"] == ["mine", "alpha", "model", "exhaustive", "tokens"]
    assert heads[0]["config"]["update"]["folder"] == str(run.absolute())
    assert merged_summary(pieces).keys() >= EVALUATED
    last_rows = [row for row in rows(evaluated) if "prune/step" not in row]
    assert len(last_rows) == 4  # steps, candidates, the picture and the page
    assert [row for piece in pieces[:3] for row in rows(piece) if "prune/step" not in row] == []

    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + "testtest")
        listed = {"runs": [{"run": str(run.absolute()), "overrides": []}]}
        replace(Path("outputs/sweeps/ratios/sweep.json"), encode(listed))
        assert multipruner(["sync", "ratios"]) == 0
        (run_id, sent), *others = server.runs.items()
        assert others == []
        url = f"{server.url}/team/multipruner/runs/{run_id}"
        assert capsys.readouterr().out == f"[1/1] {run.name}: 4 pieces sent, {url}\n"
        assert steps_sent(sent) == all_steps(run)
        assert (sent.state, sent.properties["jobType"]) == ("finished", "evaluate")
        assert sent.summary.keys() >= EVALUATED
        assert multipruner(["sync"]) == 0
        assert capsys.readouterr().out == "nothing to send\n"
        assert len(steps_sent(sent)) == len(all_steps(run))


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_online_jobs_whose_server_dies_and_comes_back_show_one_run(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    run = prepared()
    assert disturb(run, signal.SIGUSR2, after=2) == 3
    ((run_id, sent),) = server.runs.items()
    assert (sent.state, sent.properties["jobType"]) == ("preempted", "prune")
    before = logged(run)
    assert steps_sent(sent) == before

    with start(run, "calibrate", "prune") as job:
        wait_for(lambda: len(logged(run)) >= len(before) + 2 or job.poll() is not None, 60)
        server.stop()
        assert job.wait(120) == 0, (run / "job.log").read_text()
    finish(run, "dense", "evaluate")
    assert len(offline_folders(run)) == 1
    assert json.loads((run / "summary.json").read_text("utf-8"))["status"] == "done"
    assert len(steps_sent(sent)) < len(all_steps(run))

    with WandbServer(server.runs) as back:
        monkeypatch.setenv("WANDB_BASE_URL", back.url)
        assert multipruner(["sync", str(run)]) == 0
        assert list(back.runs) == [run_id]
        assert steps_sent(sent) == all_steps(run)
        assert (sent.state, sent.properties["jobType"]) == ("finished", "evaluate")
        assert sent.summary.keys() >= EVALUATED
        assert sum("candidates" in row for row in sent.history) == 1
    told = [path for path in run.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert told == []


@pytest.mark.usefixtures("warm")
def test_steps_of_another_run_are_in_every_run_that_shares_them(server: WandbServer) -> None:
    first = prepared("evaluate=none", "run.dir=first")
    finish(first, "calibrate", "prune")
    second = prepared("evaluate=none", "run.dir=second", "prune.target_ratio=30")
    finish(second, "calibrate", "prune")
    one, other = server.runs.values()
    assert steps_sent(one) == all_steps(first)
    assert steps_sent(other) == all_steps(second)
    assert json.loads((second / "summary.json").read_text("utf-8"))["steps_computed"] == 0
    keys = ("prune/step", "prune/layer", "prune/importance")
    shared = [[row.get(k) for k in keys] for row in other.history if "prune/step" in row]
    assert shared == [[row.get(k) for k in keys] for row in one.history][: len(shared)]


def test_a_run_that_is_being_written_is_left_alone(
    server: WandbServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = prepared("evaluate=none")
    with start(run, "calibrate", "prune") as job:
        wait_for(lambda: len(logged(run)) >= 1, 60)
        assert multipruner(["sync"]) == 1
        told = capsys.readouterr()
        assert f"[1/1] {run.name}: process {job.pid} on " in told.out
        assert told.out.endswith(" is writing it; left alone\n")
        assert "error: 1 of 1 runs go on" in told.err
        job.kill()
    assert server.runs == {}
    assert multipruner(["sync"]) == 0
    assert "1 piece sent" in capsys.readouterr().out
