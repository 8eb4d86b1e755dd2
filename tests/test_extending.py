"""Everything that the docs add is added to a copy of the project, and used."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support_inputs import REPOSITORY, TINY, save_model, write_tokens

FILE = re.compile(r"`([\w./]+)`:?\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("extending.md", "methods.md")
SMALL = ("prune.target_ratio=20", "run.dir=run", "tracking=none")

pytestmark = pytest.mark.xdist_group("extending")  # they share what takes long to make


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every file of the page, and a folder to work in."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "conf", "sweeps", "hydra_plugins"):
        ignored = shutil.ignore_patterns("__pycache__", "stories-5m")
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    shutil.copy(REPOSITORY / "launch.py", copy)
    pages = [(REPOSITORY / "docs" / page).read_text(encoding="utf-8") for page in PAGES]
    files = [file for page in pages for file in FILE.findall(page)]
    for name, text in files:
        assert not (copy / name).exists(), f"{name} is there already"
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    assert len(files) == 9
    place = copy / "work"
    save_model(place / "model", num_hidden_layers=3)
    write_tokens(place / "tokens.json")
    return place


def launch(python: str, place: Path, *overrides: str) -> Path:
    arguments = [*TINY, *SMALL, *overrides]
    done = subprocess.run(
        [python, str(place.parent / "launch.py"), *arguments],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return place / next(o.partition("=")[2] for o in arguments[::-1] if o.startswith("run.dir="))


def test_the_method_the_stage_and_the_chart_work(project: Path, python: str) -> None:
    random = ("prune=random", "prune.seed=3", "+keep=on")
    run = launch(python, project, *random, "run.pictures=[svg]", "run.dir=random")
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert steps[-1]["ratio_percent"] >= 20
    assert all(step["criterion"] == "random" and 0 <= step["score"] < 1 for step in steps)
    assert (run / "kept.json").read_text() == (run / "pruning_config.json").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stages"]["keep"]["status"] == "new"
    assert "Parameters left" in (run / "report.html").read_text()
    assert "Parameters left" in (run / "report.svg").read_text()

    again = launch(python, project, *random, "run.dir=random")
    summary = json.loads((again / "summary.json").read_text())
    assert {entry["status"] for entry in summary["stages"].values()} == {"reused"}

    other = launch(python, project, "prune=random", "prune.seed=4", "run.dir=other")
    assert (other / "pruning_config.json").read_text() != (run / "pruning_config.json").read_text()


def test_the_executor_works(project: Path, python: str) -> None:
    groups = ("prune.mlp_group_size=8", "prune.attn_group_size=8")
    run = launch(
        sys.executable, project, *groups, "cluster=background", "cluster.nice=1", "run.dir=behind"
    )
    end = time.monotonic() + 120
    while not (run / "summary.json").exists() or "done" not in (run / "summary.json").read_text():
        assert time.monotonic() < end, "it did not end in time"
        time.sleep(0.2)
    here = launch(python, project, *groups, "run.dir=here")
    assert (run / "steps.jsonl").read_text() == (here / "steps.jsonl").read_text()
