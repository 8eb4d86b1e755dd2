"""Programs that compute nothing import nothing heavy, so that they answer at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support_inputs import REPOSITORY, TINY, raw, save_model, write_tokens

import launch

HEAVY = ("torch", "transformers", "lm_eval", "datasets", "wandb", "numpy", "safetensors")
SMALL = (
    "run.name=there",
    "score.enabled=false",
    "prune.target_ratio=5",
    "prune.mlp_group_size=8",
    "prune.attn_group_size=8",
)
TYPED = (
    "launch.py --help",
    "launch.py prune.target_ratoi=5 model.dtype=float7",
    "launch.py -m prune.target_ratio=3,x",
    "launch.py model=hf model.path=nowhere",
    "launch.py evaluate.tasks=[hellaswg]",
    "multipruner --help",
    "multipruner status",
    "multipruner logs there",
    "multipruner cancel there",
    "multipruner check",
    "multipruner sync",
)
SCRIPT = f"""
import sys, launch
from pipeline.commands import cli
for typed in {TYPED!r}:
    sys.argv = typed.split()
    try:
        status = (launch if "launch" in typed else cli).main()
    except SystemExit as end:
        status = end.code
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print("ended:", typed, status, *loaded)
import pipeline.jobs.job
print("ended: job", *[name for name in {HEAVY!r} if name in sys.modules])
"""


def test_help_typos_and_commands_about_runs_import_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    launch.run(raw(*TINY, *SMALL), [])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    ended = [line for line in done.stdout.splitlines() if line.startswith("ended: ")]
    statuses = (0, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0)
    wanted = [f"ended: {t} {s}" for t, s in zip(TYPED, statuses, strict=True)]
    assert ended == [*wanted, "ended: job"]
    assert "prune.target_ratoi: no such key" in done.stderr
    assert "evaluate.tasks: hellaswg: no such task" in done.stderr
    assert "there" in done.stdout.partition("ended: multipruner status")[0].splitlines()[-1]
