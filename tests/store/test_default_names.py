"""What a run's folder is called where the user gave no name."""

from pathlib import Path

import pytest
from support_inputs import configured

from pipeline.store.folders import RUNS
from pipeline.store.run_folder import RunFolder

KEY = "0123456789abcdef"


def folder(*overrides: str) -> Path:
    return RunFolder.of(configured(*overrides), KEY, "acme").path


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_runs_of_several_methods_are_told_apart() -> None:
    assert folder("prune.target_ratio=12.5") == RUNS / "acme-multipruner-12.5pct-01234567"
    assert folder("prune=flap") == RUNS / "acme-flap-20pct-01234567"


def test_a_run_stays_in_the_folder_that_an_earlier_version_gave_it() -> None:
    earlier = RUNS / "acme-20pct-01234567"
    earlier.mkdir(parents=True)
    assert folder("prune=flap") == earlier


def test_names_and_folders_of_the_user_are_taken() -> None:
    assert folder("run.name=mine") == RUNS / "mine"
    assert folder("run.name=mine", "run.dir=there") == Path("there")
