"""Sweeps: one plan, in which nothing is scored twice, and every run comes out as it would alone."""

import csv
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from support_inputs import REPOSITORY, configured, save_model, write_tokens

import launch
from pipeline.commands.cli import main as multipruner
from pipeline.config.compose import compose_command
from pipeline.errors import ConfigError
from pipeline.files import sha256_of_file
from pipeline.plan import sweep
from pipeline.store import digests
from pipeline.store.folders import entries_of

RATIOS = (5, 10, 15, 20, 25)
FIVE = "prune.target_ratio=" + ",".join(map(str, RATIOS))
Json = dict[str, Any]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    sizes = {"num_hidden_layers": 8, "hidden_size": 32, "intermediate_size": 48}
    rows = [[(7 * i + 3 * j) % 100 + 4 for j in range(16)] for i in range(4)]
    return [
        "model=hf",
        f"model.path={save_model(folder / 'tiny', **sizes)}",
        "model.device=cpu",
        "calibration=tokens",
        f"calibration.path={write_tokens(folder / 'tokens.json', rows, rows[:2])}",
        "prune.mlp_group_size=8",
        "prune.attn_group_size=16",
        "score.enabled=false",
        "run.pictures=[]",
    ]


class Place:
    """A folder in which sweeps are typed."""

    def __init__(
        self, folder: Path, inputs: Sequence[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.inputs, self.monkeypatch = folder, inputs, monkeypatch

    def type(self, *arguments: str, status: int = 0) -> None:
        """``launch.py`` in this process."""
        self.folder.mkdir(exist_ok=True)
        self.monkeypatch.chdir(self.folder)
        flags = [argument for argument in arguments if argument.startswith("-")]
        rest = [argument for argument in arguments if argument not in flags]
        self.monkeypatch.setattr(sys, "argv", ["launch.py", *flags, *self.inputs, *rest])
        assert launch.main() == status

    @property
    def steps(self) -> set[tuple[str, str]]:
        """Every step that was scored here: its trajectory and its number."""
        found = self.folder.glob("outputs/store/trajectories/*/steps/[0-9]*.json")
        return {(path.parents[1].name, path.name) for path in found}

    def candidates(self) -> int:
        """How many candidates these steps had."""
        found = self.folder.glob("outputs/store/trajectories/*/steps/[0-9]*.json")
        return sum(len(json.loads(path.read_text())["candidates"]) for path in found)

    def summary(self, name: str) -> Json:
        summary: Json = json.loads(
            (self.folder / "outputs/sweeps" / name / "summary.json").read_text()
        )
        return summary

    def pruned(self) -> dict[str, Json]:
        """Each run's decisions, by its folder's name."""
        found = self.folder.glob("outputs/runs/*/pruning_config.json")
        return {path.parent.name: json.loads(path.read_text()) for path in found}

    def stages(self, name: str) -> int:
        return len(list(self.folder.glob(f"outputs/store/stages/{name}/*/done.json")))


@pytest.fixture
def place(tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "sweep", inputs, monkeypatch)


@pytest.mark.parametrize("distribution", ["[100,0,0]", "[44,52,4]"])
def test_five_ratios_score_what_five_runs_need_and_each_of_it_once(
    place: Place, tmp_path: Path, distribution: str
) -> None:
    share = f"prune.distribution={distribution}"
    place.type("-m", FIVE, share, "sweep.name=five")
    needed, alone, pruned = set(), 0, {}
    for ratio in RATIOS:
        other = Place(tmp_path / f"alone{ratio}", place.inputs, place.monkeypatch)
        other.type(f"prune.target_ratio={ratio}", share)
        needed |= other.steps
        alone += other.candidates()
        pruned |= other.pruned()
        largest = other.candidates()
    assert place.steps == needed
    assert place.summary("five")["candidates_scored"] == place.candidates() < alone
    assert place.pruned() == pruned
    if distribution == "[100,0,0]":
        assert place.candidates() == largest
    assert place.stages("calibrate") == place.stages("blocks") == 1


def test_ratios_added_to_a_finished_sweep_do_only_the_new_work(place: Place) -> None:
    place.type("-m", "prune.target_ratio=10,25", "prune.distribution=[100,0,0]", "sweep.name=more")
    before = place.steps
    place.type("-m", "prune.target_ratio=7,18", "prune.distribution=[100,0,0]", "sweep.name=more")
    assert place.steps == before
    assert place.stages("blocks") == 1  # the finished one serves
    assert place.summary("more")["candidates_scored"] == 0
    listed = json.loads((place.folder / "outputs/sweeps/more/sweep.json").read_text())["runs"]
    assert len(listed) == 4


def test_a_plan_of_twenty_runs_hashes_each_file_once(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: Counter[str] = Counter()

    def counted(path: Path) -> str:
        hashed[path.name] += 1
        return sha256_of_file(path)

    digests._sha256.cache_clear()
    monkeypatch.setattr(digests, "sha256_of_file", counted)
    monkeypatch.chdir(tmp_path)
    config = configured(*inputs)
    ratios = [config.prune.model_copy(update={"target_ratio": float(r)}) for r in range(1, 21)]
    configs = [config.model_copy(update={"prune": each}) for each in ratios]
    overrides = [(f"prune.target_ratio={each.target_ratio}",) for each in ratios]
    assert len(sweep.Sweep.of(configs, overrides, "a command").runs) == 20
    assert hashed == {"model.safetensors": 1, "tokens.json": 1}


def test_two_launches_at_once_lose_no_run_of_their_sweep(tmp_path: Path) -> None:
    launches = multiprocessing.get_context("fork")
    for _ in range(8):
        both = launches.Barrier(2)
        processes = [launches.Process(target=_claim, args=(tmp_path, both)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    assert len(entries_of(tmp_path / "outputs/sweeps/both")) == 16


def _claim(place: Path, at_once: Barrier) -> None:
    """Launch one run into a sweep, in a process of its own."""
    os.chdir(place)
    at_once.wait()
    sweep.Sweep("both", "a command", (), {Path(f"outputs/runs/{os.getpid()}"): ()}).claim()


def test_a_combination_that_fails_does_not_stop_the_others(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.type("-m", "prune.target_ratio=95,10", "sweep.name=some", status=1)
    assert "1 of 2 runs failed" in capsys.readouterr().err
    summary = place.summary("some")
    assert [run["status"] for run in summary["runs"]] == ["failed", "done"]
    assert "95 cannot be reached" in summary["runs"][0]["error"]
    assert (summary["done"], summary["failed"]) == (1, 1)


def test_a_plan_says_what_varies_and_the_end_is_a_line_a_run_and_the_comparison(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ("-m", "prune.target_ratio=10,20", "prune.distribution=[100,0,0]", "sweep.name=told")
    place.type(*swept, "plan=true")
    planned = capsys.readouterr().out
    rows = [line.split() for line in planned.splitlines()]
    assert rows[0] == ["target_ratio", "shared", "new"]
    assert rows[1] == ["20", "all", "3", "stages"]
    assert rows[2] == ["10", "2", "prune"]
    assert "done once: calibrate, blocks for 2 runs" in planned
    place.type(*swept)
    told = capsys.readouterr().out
    assert "1 of 2: target_ratio 20: 2" in told
    assert "calibration perplexity" in told
    assert told.count("Parameters") == 0
    assert "see: outputs/sweeps/told/comparison.html" in told
    assert not (place.folder / "outputs/sweeps/told/comparison.png").exists()


def test_a_wrong_combination_is_named_before_anything_runs(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.type("-m", "prune.target_ratio=10,200", "prune.mlp_group_size=4711", status=2)
    told = capsys.readouterr().err
    assert "prune.target_ratio: 200 is wrong; allowed is a number below 100 (in " in told
    place.type("-m", "prune.target_ratio=10,20", "prune.mlp_group_size=8,4711", status=2)
    told = capsys.readouterr().err
    assert told.count("prune.mlp_group_size: 4711 is wrong") == 1
    assert not (place.folder / "outputs").exists()


def test_distributions_that_start_channels_from_the_same_state_share_them(place: Place) -> None:
    shares = "prune.distribution=[40,60,0],[40,30,30]"
    place.type("-m", "prune.target_ratio=20", shares)
    assert place.stages("blocks") == 1
    assert place.stages("mlp_channels") == 1
    channels = [
        path
        for path in place.folder.glob("outputs/store/trajectories/*/identity.json")
        if json.loads(path.read_text())["dimension"] == "mlp_channels"
    ]
    assert len(channels) == 1


def test_other_orders_begin_with_another_dimension(place: Place) -> None:
    orders = "prune.order=[blocks,mlp_channels,heads],[mlp_channels,blocks,heads]"
    place.type("-m", "prune.target_ratio=20", "prune.distribution=[50,50,0]", orders)
    firsts = set()
    for path in place.folder.glob("outputs/runs/*/steps.jsonl"):
        dimensions = [json.loads(line)["dimension"] for line in path.read_text().splitlines()]
        assert set(dimensions) == {"blocks", "mlp_channels"}
        firsts.add(dimensions[0])
    assert firsts == {"blocks", "mlp_channels"}


def test_a_plan_tells_evaluations_with_and_without_sharing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    share = "prune.distribution=[100,0,0]"
    place.type("-m", FIVE, share, "plan=json")
    plan = json.loads(capsys.readouterr().out)
    assert plan["done"] == 0
    assert plan["new"] == plan["candidate_evaluations"] < plan["without_sharing"]
    assert plan["scoring_seconds"] is None
    assert 0 < plan["forward_passes"] < plan["new"]
    assert not (place.folder / "outputs").exists()
    kinds = [(entry["stage"], entry["plan"]) for entry in plan["stages"]]
    assert kinds.count(("blocks", "new")) == kinds.count(("calibrate", "new")) == 1
    assert kinds.count(("blocks", "shared")) == kinds.count(("calibrate", "shared")) == 4
    assert kinds.count(("prune", "new")) == 5

    place.type("-m", FIVE, share)
    capsys.readouterr()
    place.type("-m", FIVE, share, "plan=json")
    done = json.loads(capsys.readouterr().out)
    assert done["new"] == 0
    assert done["done"] == place.candidates()
    assert done["new_estimated"] == 0
    assert abs(plan["new"] - done["done"]) < 0.2 * done["done"]


def test_what_differs_between_two_runs_is_told(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.type("-m", "prune.target_ratio=10,20", "prune.distribution=[100,0,0]")
    names = sorted(path.name for path in (place.folder / "outputs/runs").iterdir())
    capsys.readouterr()
    assert multipruner(["why", *names]) == 0
    told = capsys.readouterr().out
    assert re.search(r"configuration +(\S+) +(\S+)\s+prune.target_ratio +10.0 +20.0 *\n", told)
    assert "calibrate: the same" in told
    assert re.search(r"\n\s*target_ratio +10.0 +20.0\s*\n", told)
    assert "calibration" not in told


def test_status_and_why_take_a_sweep(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.type("-m", "prune.target_ratio=10,20", "prune.distribution=[100,0,0]", "sweep.name=two")
    capsys.readouterr()
    assert multipruner(["status", "two", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["state"] for entry in told] == ["done", "done"]
    assert multipruner(["why", "two"]) == 0
    why = capsys.readouterr().out
    assert all(f"run {Path(entry['run']).name}\n" in why for entry in told)
    assert len(re.findall(r"\n *prune +done +finished ", why)) == 2


def test_the_runs_of_a_sweep_are_compared(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    measured = ["probe=latency", "probe.every=100", "probe.workloads.default.prompt_tokens=8"]
    few = ["probe.workloads.default.output_tokens=2", "probe.repeats=1"]
    ratios = "prune.target_ratio=5,15,99"
    place.type("-m", ratios, "sweep.name=five", *measured, *few, status=1)
    capsys.readouterr()
    assert multipruner(["compare", "five"]) == 0
    out = capsys.readouterr().out
    assert "failed: prune.target_ratio=99 cannot be reached" in out
    assert "see: outputs/sweeps/five/comparison.html" in out
    with Path("outputs/sweeps/five/comparison.csv").open() as stream:
        rows = {row["target_percent"]: row for row in csv.DictReader(stream)}
    assert {ratio: row["state"] for ratio, row in rows.items()} == {
        "5.0": "done", "15.0": "done", "99.0": "failed",
    }  # fmt: skip
    for row in (rows["5.0"], rows["15.0"]):
        assert float(row["prefill_ms"]) > 0
        assert float(row["dense_prefill_ms"]) > 0
        assert float(row["removed_percent"]) >= float(row["target_percent"])
    page = Path("outputs/sweeps/five/comparison.html").read_text()
    assert page.count('class="chart run-layers"') == 3


@pytest.mark.usefixtures("warm")
def test_a_killed_sweep_goes_on_where_it_was(place: Place) -> None:
    command = [
        sys.executable, str(REPOSITORY / "launch.py"), "-m", *place.inputs, FIVE, "sweep.name=five",
    ]  # fmt: skip
    place.folder.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=place.folder, env=environment, stdout=subprocess.DEVNULL
    )
    while len(place.steps) < 5:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in place.folder.rglob("steps/[0-9]*.json")}
    place.type("-m", FIVE, "sweep.name=five")
    assert place.summary("five")["done"] == 5
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert place.summary("five")["candidates_scored"] < place.candidates()


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "sweeps/sweep").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_sweep_file_is_composed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from pipeline.plan.sweep import labels, validated

    line = next(text for text in file.read_text().splitlines() if text.startswith("# python"))
    program, *arguments = shlex.split(line.removeprefix("# python "))
    assert program == "launch.py"
    assert f"+sweep={file.stem}" in arguments
    monkeypatch.setattr(sys, "argv", ["launch.py"])
    combinations, is_sweep = compose_command(arguments, [])
    assert is_sweep
    configs = validated(combinations, [])
    assert len(set(labels([each.overrides for each in combinations]))) == len(configs)
    assert len({config.model_dump_json() for config in configs}) == len(configs)


def test_a_key_of_a_technique_may_be_typed_where_any_combination_does_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def problems(*arguments: str) -> list[str]:
        combinations, _ = compose_command([*arguments, "recover.distill.lr=1e-4"], [])
        try:
            sweep.validated(combinations, [])
        except ConfigError as error:
            return error.problems
        return []

    monkeypatch.setattr(sys, "argv", ["launch.py"])
    assert problems("-m", "recover=none,distill") == []
    assert problems("-m", "recover.steps=[compensate],[compensate,distill]") == []
    (problem,) = problems("-m", "recover=none,compensate")
    assert problem == (
        "recover.distill.lr: means nothing where recover.steps does not have distill; type "
        "recover=distill, or name it there beside others"
    )
    monkeypatch.setattr(sys, "argv", ["launch.py", "recover=lora", "recover.distill.lr=1e-4"])
    assert launch.main() == 2
    assert f"\n  {problem}\n" in capsys.readouterr().err
