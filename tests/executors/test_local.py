"""cluster=local: the stages run in a process of their own, which is asked after and cancelled."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support_inputs import REPOSITORY, save_model, write_tokens

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def run(folder: Path, *command: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *command], check=False,
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def launch(folder: Path, *arguments: str, status: int = 0) -> str:
    return run(folder, str(REPOSITORY / "launch.py"), *arguments, status=status)


def multipruner(folder: Path, *arguments: str, status: int = 0) -> str:
    return run(folder, "-m", "pipeline.commands.cli", *arguments, status=status)


def state(folder: Path) -> str:
    (entry,) = json.loads(multipruner(folder, "status", "--json"))
    return str(entry["state"])


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    return [
        "model=hf",
        "run.pictures=[]",
        f"model.path={save_model(folder / 'tiny')}",
        "calibration=tokens",
        f"calibration.path={write_tokens(folder / 'tokens.json')}",
        "prune.target_ratio=10",
        "prune.mlp_group_size=8",
        "prune.attn_group_size=8",
        "run.name=here",
    ]


def results(folder: Path) -> dict[str, Any]:
    run_folder = folder / "outputs/runs/here"
    return {
        name: (run_folder / name).read_bytes() for name in ("pruning_config.json", "steps.jsonl")
    }


@pytest.mark.usefixtures("warm")
def test_a_local_run_gives_what_this_process_gives(arguments: list[str], tmp_path: Path) -> None:
    here, apart = tmp_path / "inline", tmp_path / "local"
    here.mkdir()
    apart.mkdir()
    launch(here, *arguments)
    assert "1 jobs submitted" in launch(apart, *arguments, "cluster=local", "wait=true")
    assert results(apart) == results(here)
    assert state(apart) == "done"
    assert "prune new" in multipruner(apart, "logs", "here")
    assert re.search(r"\n *prune +done ", multipruner(apart, "why", "here"))
    assert "nothing to submit" in launch(apart, *arguments, "cluster=local")


def test_what_an_offline_run_lacks_is_named_before_it_starts(tmp_path: Path) -> None:
    from support_inputs import save_tokenizer

    model = save_tokenizer(save_model(tmp_path / "tiny"))
    told = launch(
        tmp_path,
        "cluster=local",
        "cluster.offline=true",
        "model=hf",
        "run.pictures=[]",
        f"model.path={model}",
        "calibration=wikitext2",
        "calibration.seqlen=32",
        "prune.mlp_group_size=8",
        "prune.attn_group_size=8",
        "evaluate.text=wikitext2",
        "evaluate.seqlen=32",
        status=2,
    )
    assert "calibration.dataset: wikitext2 is not in the cache" in told
    assert "evaluate.text: wikitext2 is not in the cache" in told
    assert "multipruner prefetch" in told
    assert not (tmp_path / "outputs").exists()


@pytest.mark.usefixtures("warm")
def test_keys_of_a_cluster_mean_nothing_in_this_process(tmp_path: Path) -> None:
    told = launch(tmp_path, "cluster.partition=a100", status=2)
    assert "cluster.partition means nothing in this process; add cluster=slurm" in told


@pytest.mark.usefixtures("warm")
def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no run nowhere here" in multipruner(tmp_path, "status", "nowhere", status=2)


@pytest.mark.usefixtures("warm")
def test_runs_of_a_sweep_wait_for_what_they_share(arguments: list[str], tmp_path: Path) -> None:
    rest = [a for a in arguments if not a.startswith(("run.name", "prune.target_ratio"))]
    launch(tmp_path, "-m", *rest, "prune.target_ratio=10,25", "cluster=local", "cluster.gpus=0",
           "sweep.name=two", "wait=true")  # fmt: skip
    told = json.loads(multipruner(tmp_path, "status", "two", "--json"))
    assert [entry["state"] for entry in told] == ["done", "done"]
    steps = list(tmp_path.glob("outputs/store/trajectories/*/steps/[0-9]*.json"))
    scored = sum(len(json.loads(path.read_text())["candidates"]) for path in steps)
    summaries = [json.loads(p.read_text()) for p in tmp_path.glob("outputs/runs/*/summary.json")]
    assert sum(summary["candidates_scored"] for summary in summaries) == scored
