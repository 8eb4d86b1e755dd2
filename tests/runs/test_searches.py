"""Whole runs of the built-in model with searches and precisions by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import launch

FAST = (
    "calibration.block_windows=4",
    "calibration.width_windows=3",
    "calibration.seqlen=32",
    "prune.target_ratio=16",
    "prune.distribution=[1,1,0]",
    "score.enabled=false",
    "probe=none",
    "evaluate=none",
    "tracking=none",
    "run.pictures=[]",
)

RACE = ("prune.search=race", "prune.audit_every=2")

Json = dict[str, Any]
Raced = tuple[Path, Json, list[Json]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("searches"),  # they share what takes long to make
]


def run(place: Path, *arguments: str) -> tuple[Json, list[Json]]:
    """Summary and steps of a run from start to end, in its own store."""
    command = [*FAST, *arguments, f"run.dir={place / 'run'}", f"store.dir={place / 'store'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["launch.py", *command])
        assert launch.main() == 0
    lines = (place / "run" / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    summary = json.loads((place / "run" / "summary.json").read_text(encoding="utf-8"))
    return summary, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def exhaustive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, list[Json]]:
    return run(tmp_path_factory.mktemp("exhaustive"))


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Raced:
    """A race from start to end, and where it was."""
    place = tmp_path_factory.mktemp("raced")
    return place, *run(place, *RACE)


def chosen(steps: list[Json]) -> list[tuple[str, int, int]]:
    return [(s["unit"], s["layer"], s["width_after"]) for s in steps]


def test_mixed_precision_decides_as_float32_does(
    exhaustive: tuple[Json, list[Json]], tmp_path: Path
) -> None:
    summary, steps = run(tmp_path, "scoring.precision=mixed")
    assert chosen(steps) == chosen(exhaustive[1])
    for ours, theirs in zip(steps, exhaustive[1], strict=True):
        assert ours["importance"] == pytest.approx(theirs["importance"], rel=1e-6)
        for mine, other in zip(ours["candidates"], theirs["candidates"], strict=True):
            tolerance = 1e-2 if mine.get("estimated") else 1e-6
            assert mine["ppl"] == pytest.approx(other["ppl"], rel=tolerance)
    assert summary["candidates_scored_in_full"] < summary["candidates_scored"]
    assert summary["candidates_scored"] == exhaustive[0]["candidates_scored"]


def test_a_race_is_audited_and_says_what_it_saved(
    exhaustive: tuple[Json, list[Json]], raced: Raced
) -> None:
    _, summary, steps = raced
    audited = [step for step in steps if "audited" in step]
    assert len(audited) >= len(steps) // 2 - 1
    assert summary["audit"]["steps"] == len(audited)
    otherwise = [s for s in audited if s["audited"] != {k: s[k] for k in s["audited"]}]
    assert summary["audit"]["decided_otherwise"] == len(otherwise)
    assert summary["candidates_scored_in_full"] < summary["candidates_scored"]
    assert exhaustive[0]["audit"] == {"steps": 0, "decided_otherwise": 0}


def test_a_race_that_goes_on_decides_as_one_that_was_not_stopped(
    raced: Raced, tmp_path: Path
) -> None:
    place, _, whole = raced
    shutil.copytree(place / "store", tmp_path / "store")
    steps = sorted((tmp_path / "store").glob("trajectories/*/steps/*.json"))
    for step in steps:
        if int(step.stem) >= 1:
            step.unlink()
    for marker in (tmp_path / "store").glob("stages/*/*/done.json"):
        marker.unlink()
    summary, again = run(tmp_path, *RACE)
    assert again == whole
    assert 0 < summary["steps_computed"] < len(whole)


def test_audits_change_no_decision(tmp_path: Path) -> None:
    _, often = run(tmp_path / "often", "prune.search=race", "prune.audit_every=1")
    _, never = run(tmp_path / "never", "prune.search=race", "prune.audit_every=0")
    assert [{k: v for k, v in s.items() if k != "audited"} for s in often] == never
