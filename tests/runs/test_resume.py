"""Launches that are killed, interrupted, or started twice end as if nothing had happened."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_run import scored_on_disk
from transformers import LlamaConfig, LlamaForCausalLM

LAUNCH = Path(__file__).parents[2] / "launch.py"
KILLED_RUN = Path(__file__).with_name("killed_run.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny matrices gain nothing from threads
VOCABULARY = 64
RESULTS = ("pruning_config.json", "steps.jsonl")

Json = dict[str, Any]
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Launch:
    """A launch of the same run in some folder."""

    arguments: list[str]
    place: Path
    python: str

    def start(self, *more: str) -> Process:
        self.place.mkdir(exist_ok=True)
        return self.start_command([self.python, str(LAUNCH), *self.arguments, *more])

    def start_command(self, command: list[str]) -> Process:
        return subprocess.Popen(
            command,
            cwd=self.place,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def to_the_end(process: Process) -> None:
    _, errors = process.communicate(timeout=900)
    assert (process.returncode, errors) == (0, "")


def run_folder(place: Path) -> Path:
    (folder,) = (place / "outputs" / "runs").iterdir()
    return folder


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def read(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))


def wait_for(condition: Callable[[], object], process: Process) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the launch ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of 10 steps with a random model as large as the golden llama_gqa."""
    folder = tmp_path_factory.mktemp("inputs")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        mean = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.normal_(mean, 0.2, generator=generator)
    model.save_pretrained(folder / "model")
    draw = random.Random(0)
    tokens = {
        kind: [[draw.randrange(3, VOCABULARY) for _ in range(64)] for _ in range(count)]
        for kind, count in (("block", 12), ("width", 6))
    }
    (folder / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    return [
        "model=hf",
        "run.pictures=[svg]",
        f"model.path={folder / 'model'}",
        "model.device=cpu",
        "calibration=tokens",
        f"calibration.path={folder / 'tokens.json'}",
        "prune.target_ratio=35",
        "prune.distribution=[40,57,3]",
        "prune.mlp_group_size=32",
        "prune.attn_group_size=32",
    ]


@pytest.fixture(scope="module")
def undisturbed(
    arguments: list[str], python: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The place of a launch that nobody disturbed."""
    place = tmp_path_factory.mktemp("undisturbed")
    to_the_end(Launch(arguments, place, python).start())
    return place


@pytest.fixture
def launch(arguments: list[str], tmp_path: Path, python: str) -> Launch:
    return Launch(arguments, tmp_path, python)


# Killed


@pytest.mark.xdist_group("kills")  # one undisturbed run for all of them
@pytest.mark.parametrize(
    ("kills", "seed"), [(20, 1), pytest.param(50, 2, marks=pytest.mark.slow)], ids=["20", "50"]
)
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(
    launch: Launch, undisturbed: Path, kills: int, seed: int
) -> None:
    driver = [launch.python, str(KILLED_RUN), str(kills), str(seed), "report.json"]
    to_the_end(launch.start_command([*driver, *launch.arguments]))
    report = read(launch.place / "report.json")
    assert report["status"] == 0
    assert sum(len(each["found"]) - 1 for each in report["rounds"]) == kills
    wanted, total = results(run_folder(undisturbed)), scored_on_disk(undisturbed)
    for each in report["rounds"]:
        place = launch.place / each["folder"]
        assert results(run_folder(place)) == wanted
        assert_the_last_start_did_the_rest(run_folder(place), each["found"], total)
        assert scored_on_disk(place) == total
        assert_all_files_are_whole(place / "outputs")
    partly = [n for each in report["rounds"] for n in each["found"] if 0 < n < total]
    assert partly, "no kill hit the work"


def assert_the_last_start_did_the_rest(folder: Path, found: list[int], total: int) -> None:
    summary, stages = read(folder / "summary.json"), read(folder / "stages.json")
    assert found == sorted(found), "steps never get lost"
    assert summary["candidates_scored"] == total - found[-1]
    assert summary["status"] == "done"
    assert {name: entry["key"] for name, entry in summary["stages"].items()} == stages
    by_stage = {name: entry["candidates_scored"] for name, entry in summary["stages"].items()}
    assert sum(by_stage.values()) == summary["candidates_scored"]
    assert (summary["steps_computed"] == 0) == (by_stage["score"] + by_stage["prune"] == 0)
    assert {entry["status"] for entry in summary["stages"].values()} <= {"new", "reused"}


def assert_all_files_are_whole(folder: Path) -> None:
    files = [path for path in folder.rglob("*.json") if not path.name.startswith(".")]
    assert files
    for path in files:
        read(path)
    for steps in folder.glob("store/trajectories/*/steps"):
        names = sorted(path.name for path in steps.glob("[0-9]*"))
        assert names == [f"{i:05d}.json" for i in range(len(names))]


# Twice at the same time


@pytest.mark.xdist_group("resume")
def test_two_launches_that_share_a_store_score_each_candidate_once(
    launch: Launch, undisturbed: Path
) -> None:
    for process in [launch.start("run.dir=one"), launch.start("run.dir=other")]:
        to_the_end(process)
    scored = 0
    for name in ("one", "other"):
        summary = read(launch.place / name / "summary.json")
        assert summary["status"] == "done"
        assert results(launch.place / name) == results(run_folder(undisturbed))
        scored += summary["candidates_scored"]
    assert scored == scored_on_disk(launch.place) == scored_on_disk(undisturbed)


def test_two_launches_with_different_ratios_take_their_common_steps_together(
    launch: Launch,
) -> None:
    blocks_only = "prune.distribution=[100,0,0]"
    low = launch.start(blocks_only, "prune.target_ratio=30", "run.dir=low")
    high = launch.start(blocks_only, "prune.target_ratio=60", "run.dir=high")
    for process in (low, high):
        to_the_end(process)
    rows = {
        name: (launch.place / name / "steps.jsonl").read_text(encoding="utf-8").splitlines()
        for name in ("low", "high")
    }
    assert 0 < len(rows["low"]) < len(rows["high"])
    assert rows["high"][: len(rows["low"])] == rows["low"]
    summaries = [read(launch.place / name / "summary.json") for name in ("low", "high")]
    scored = sum(summary["candidates_scored"] for summary in summaries)
    assert scored == scored_on_disk(launch.place)


@pytest.mark.xdist_group("resume")
def test_two_launches_of_the_same_run_give_one_set_of_results(
    launch: Launch, undisturbed: Path
) -> None:
    for process in [launch.start(), launch.start()]:
        to_the_end(process)
    folder = run_folder(launch.place)
    assert results(folder) == results(run_folder(undisturbed))
    assert read(folder / "summary.json")["status"] == "done"
    assert scored_on_disk(launch.place) == scored_on_disk(undisturbed)
    assert_all_files_are_whole(launch.place / "outputs")


# Interrupted


@pytest.mark.xdist_group("resume")
@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_launch_says_how_to_go_on_and_goes_on_so(
    launch: Launch, undisturbed: Path
) -> None:
    process = launch.start()
    steps = launch.place / "outputs" / "store" / "trajectories"
    wait_for(lambda: len(list(steps.glob("*/steps/[0-9]*.json"))) > 4, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    message, command = errors.splitlines()
    assert process.returncode == 1
    assert message.startswith("interrupted; everything up to the last step is kept")
    kept = scored_on_disk(launch.place)
    assert 0 < kept < scored_on_disk(undisturbed)
    assert read(run_folder(launch.place) / "summary.json")["status"] == "failed"

    python, *rest = shlex.split(command)
    assert python == "python"
    to_the_end(launch.start_command([launch.python, *rest]))
    assert results(run_folder(launch.place)) == results(run_folder(undisturbed))
    summary = read(run_folder(launch.place) / "summary.json")
    assert summary["candidates_scored"] == scored_on_disk(undisturbed) - kept


@pytest.mark.usefixtures("interrupts")
def test_a_launch_interrupted_while_it_reads_the_command_line_shows_no_traceback(
    launch: Launch,
) -> None:
    process = launch.start_command([sys.executable, str(LAUNCH), *launch.arguments])
    mapped = Path(f"/proc/{process.pid}/maps")
    wait_for(lambda: "/yaml/_yaml." in mapped.read_text(), process)  # Hydra is being imported
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert errors.startswith("interrupted; ")
    assert process.returncode == 1
