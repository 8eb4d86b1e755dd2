"""What launch.py does with what goes wrong: the exit status, what it says, what it leaves."""

import errno
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from support_inputs import (
    CONF,
    REPOSITORY,
    edit_config,
    edit_weights,
    files_under,
    raw,
    save_model,
    write_tokens,
)

import launch
from pipeline.stages import calibrate

LAUNCH = REPOSITORY / "launch.py"

ARGUMENTS = (
    "model=hf",
    "model.path=model",
    "calibration=tokens",
    "calibration.path=tokens.json",
    "prune.target_ratio=20",
    "prune.distribution=[1,1,1]",
    "prune.mlp_group_size=4",
    "prune.attn_group_size=8",
    "run.dir=run",
    "store.dir=store",
)
"""Prunes the model of ``place`` in a few steps, into ``run`` and ``store``."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and all that it printed."""

    status: int
    text: str


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without tokenizer, saved once."""
    return save_model(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def place(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a model and token ids."""
    shutil.copytree(saved, tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*arguments: str, **environment: str) -> Outcome:
    """Type the command: a process of its own."""
    done = subprocess.run(
        [sys.executable, LAUNCH, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return Outcome(done.returncode, done.stdout)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a whole command line in this process."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
        capfd.readouterr()
        status = launch.main()
        printed = capfd.readouterr()
        return Outcome(status, printed.out + printed.err)

    return run


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Do what launch.py does with a configuration, in this process."""

    def run(*overrides: str) -> Outcome:
        capfd.readouterr()
        work = raw(*ARGUMENTS, *overrides)
        status = launch.report_errors(lambda: launch.run(work, []), "python launch.py AGAIN")
        printed = capfd.readouterr()
        return Outcome(status, printed.out + printed.err)

    return run


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text("utf-8").splitlines()]


# ---- a wrong configuration


def test_every_mistake_of_a_command_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    done = typed(
        "calibration=text",
        "+paper=nope",
        "modle=hf",
        "prune.traget_ratio=10",
        "prune.distribution=[44,52",
        "prune.target_ratio=nan",
        "prune.mlp_group_size=1.5",
        "model.dtype=float64",
        "tracking.api_key=hunter2",
        f"hydra.run.dir={tmp_path / 'here'}",
    )
    assert done.status == 2
    lines = done.text.splitlines()
    assert lines[0] == "The configuration is wrong:"
    assert sorted(line.strip().partition(":")[0] for line in lines[1:]) == [
        "calibration.path",
        "model.dtype",
        "modle",
        "paper",
        "prune.distribution",
        "prune.mlp_group_size",
        "prune.target_ratio",
        "prune.traget_ratio",
        "tracking.api_key",
    ]
    assert "hunter2" not in done.text
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]
