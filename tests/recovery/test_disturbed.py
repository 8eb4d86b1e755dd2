"""Training that is killed goes on; ranks that share it learn the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support_inputs import REPOSITORY

KILLS, SEED = 20, 3
PATHS = (REPOSITORY, REPOSITORY / "tests", REPOSITORY / "tests" / "recovery")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = Path(__file__).with_name("disturbed_training.py")
    paths = os.pathsep.join(map(str, PATHS))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(KILLS), str(SEED)],
        cwd=tmp_path_factory.mktemp("disturbed"),
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.xdist_group("disturbed_training")
@pytest.mark.parametrize("name", ["distill", "lora"])
def test_kills_at_any_moment_change_nothing(name: str, found: dict[str, Any]) -> None:
    of_name = found[name]
    assert of_name["resumed"] > 0
    expected = {"same": True, "left": [], "same_curve": True}
    assert of_name["rounds"] == [expected] * len(of_name["rounds"])


@pytest.mark.slow
@pytest.mark.xdist_group("disturbed_training")
def test_two_ranks_learn_what_one_does(found: dict[str, Any]) -> None:
    assert found["statuses"] == [0, 0]
    alone, ranked = (found[who]["held_out"]["counting"] for who in ("alone", "ranked"))
    assert ranked == pytest.approx(alone, abs=1e-3)
    assert ranked["after"] < ranked["before"]


@pytest.mark.slow
@pytest.mark.xdist_group("disturbed_training")
def test_a_rank_that_is_gone_ends_it(found: dict[str, Any]) -> None:
    assert found["left"] == [-9, 1]
    assert found["error"].startswith("rank 1 of 2 is gone")
