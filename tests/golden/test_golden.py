"""Whole free runs, as a person starts them, against runs of the published reference."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

LAUNCH = Path(__file__).parents[2] / "launch.py"
STEP_FIELDS = [
    "step",
    "dimension",
    "unit",
    "layer",
    "width_after",
    "importance",
    "ratio_percent",
    "params",
    "candidates",
    "schema_version",
]
CANDIDATE_FIELDS = ["unit", "layer", "width_after", "ppl"]
DIMENSION_OF = {
    "attn": "blocks",
    "mlp": "blocks",
    "mlp_width": "mlp_channels",
    "attn_width": "heads",
}
CLOSE = 2e-4
CLEAR_GAP = 1e-4
"""Where the reference's best and second best are closer, either may go first."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A golden run, and ours with the same settings in a folder of its own."""

    golden: Json
    place: Path
    arguments: list[str]
    python: str

    @property
    def folder(self) -> Path:
        (folder,) = (self.place / "outputs" / "runs").iterdir()
        return folder

    @property
    def steps(self) -> list[Json]:
        lines = (self.folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def summary(self) -> Json:
        return read(self.folder / "summary.json")

    def launch(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, str(LAUNCH), *self.arguments],
            cwd=self.place,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # tiny matrices gain nothing from threads
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def read(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))


def what(candidate: Json) -> tuple[str, int, int]:
    return candidate["unit"], candidate["layer"], candidate["width_after"]


MODELS = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"golden: {name}"))
    for name in ("llama_mha", "llama_gqa", "qwen2_gqa")
]
"""All tests of one run in one process, which makes it once."""


@pytest.fixture(scope="module", params=MODELS)
def run(
    request: pytest.FixtureRequest,
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
    python: str,
) -> Run:
    """A finished run of each tiny golden model in turn."""
    folder = shared / "golden" / request.param
    golden = read(folder / "golden.json")
    assert golden["weight_reorder"], "the default here"
    place = tmp_path_factory.mktemp(request.param)
    tokens = place / "calibration.json"
    tokens.write_text(json.dumps(golden["calibration"]), encoding="utf-8")
    arguments = [
        "model=hf",
        "run.pictures=[]",
        f"model.path={(folder / 'model').resolve()}",
        "calibration=tokens",
        f"calibration.path={tokens}",
        f"prune.target_ratio={golden['target_ratio_percent']}",
        f"prune.distribution=[{golden['pruning_distribution'].replace(':', ',')}]",
        f"prune.mlp_group_size={golden['mlp_channel_group_size']}",
        f"prune.attn_group_size={golden['attn_channel_group_size']}",
        "probe=none",
        "evaluate=none",
        "tracking=none",
    ]
    run = Run(golden, place, arguments, python)
    ended = run.launch()
    assert (ended.returncode, ended.stderr) == (0, "")
    return run


def test_ends_in_the_references_pruning_config(run: Run) -> None:
    assert read(run.folder / "pruning_config.json") == run.golden["pruning_config"]


def test_takes_as_many_steps_as_the_reference(run: Run) -> None:
    assert len(run.steps) == len(run.golden["steps"])
    assert run.summary["steps"] == len(run.golden["steps"])


def test_makes_the_references_choice_wherever_its_gap_is_clear(run: Run) -> None:
    for ours, golden in zip(run.steps, run.golden["steps"], strict=True):
        first, *others = sorted(candidate["ppl"] for candidate in golden["candidates"])
        if not others or (others[0] - first) / first > CLEAR_GAP:
            assert what(ours) == what(golden["chosen"])


def test_tries_the_references_candidates_in_its_order(run: Run) -> None:
    for ours, golden in zip(run.steps, run.golden["steps"], strict=True):
        assert list(map(what, ours["candidates"])) == list(map(what, golden["candidates"]))


def test_measures_the_references_perplexity_of_every_candidate(run: Run) -> None:
    for ours, golden in zip(run.steps, run.golden["steps"], strict=True):
        theirs = [candidate["ppl"] for candidate in golden["candidates"]]
        assert [c["ppl"] for c in ours["candidates"]] == pytest.approx(theirs, rel=CLOSE, abs=0)
        assert ours["importance"] == pytest.approx(golden["importance"], rel=CLOSE, abs=0)


def test_counts_the_references_ratio_after_every_step(run: Run) -> None:
    for ours, golden in zip(run.steps, run.golden["steps"], strict=True):
        assert ours["ratio_percent"] == pytest.approx(
            golden["ratio_percent_after"], rel=0, abs=1e-9
        )
        left = run.golden["total_params"] * (1 - ours["ratio_percent"] / 100)
        assert ours["params"] == pytest.approx(left, rel=0, abs=1e-3)


def test_steps_have_the_documented_fields(run: Run) -> None:
    assert [row["step"] for row in run.steps] == list(range(len(run.steps)))
    for row in run.steps:
        assert list(row) == STEP_FIELDS
        assert row["dimension"] == DIMENSION_OF[row["unit"]]
        assert all(list(candidate) == CANDIDATE_FIELDS for candidate in row["candidates"])


def test_each_step_takes_the_candidate_with_the_lowest_perplexity(run: Run) -> None:
    for row in run.steps:
        best = min(row["candidates"], key=lambda candidate: candidate["ppl"])
        assert (what(row), row["importance"]) == (what(best), best["ppl"])


def test_the_runs_folder_tells_what_was_run_and_what_came_of_it(run: Run) -> None:
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["prune"]["target_ratio"] == run.golden["target_ratio_percent"]
    assert config["prune"]["mlp_group_size"] == run.golden["mlp_channel_group_size"]
    last = run.steps[-1]
    assert run.summary["status"] == "done"
    assert run.summary["total_params"] == run.golden["total_params"]
    assert run.summary["params"] == last["params"]
    assert run.summary["ratio_percent"] == last["ratio_percent"]
    assert run.summary["ppl"] == last["importance"]


KEYS = {
    "llama_gqa": {
        "calibrate": "9e8befcacd7fe7c3af4b",
        "score": "dd25e474049a46b71665",
        "prune": "84e94f82108f10e15a72",
        "trajectories": [
            "15cb2c9ca6197a37a195",
            "27fd1fc61b43bc36ac4f",
            "78705c82258497655192",
            "e9ed2148e69080127e98",
            "f588b60be2ee9d679887",
        ],
    },
    "llama_mha": {
        "calibrate": "1998c3640adb8fc6db32",
        "score": "e646df60385bf8b9ab98",
        "prune": "1ea4bff1374540955e47",
        "trajectories": [
            "138d08c2f80a1e2decd7",
            "4142066ce3ae7deb16b6",
            "9b0e295e4a037d9a3ad6",
            "ae73f112943548d84348",
            "eb1e68b1b19c130a78dd",
        ],
    },
    "qwen2_gqa": {
        "calibrate": "a750013da1fff90e614e",
        "score": "a376e2b774196e7d67ad",
        "prune": "0b815f42a84768826c9d",
        "trajectories": [
            "17031e76e7a3217ca55a",
            "6e2c66489cbef30cc6ba",
            "d19a66b3c8790c73664c",
            "dae45ab7f327a02f16c8",
            "db187237fa6d887081ea",
        ],
    },
}
"""Of the first version, on a CPU. Where they change, nothing that users have stored is found."""


def test_what_is_stored_keeps_its_keys(run: Run) -> None:
    if torch.cuda.is_available():
        pytest.skip("keys hold the device")
    keys = KEYS[run.place.name.rstrip("0123456789")]
    stored = (run.place / "outputs" / "store" / "trajectories").iterdir()
    assert {
        **read(run.folder / "stages.json"),
        "trajectories": sorted(path.name for path in stored if path.is_dir()),
    } == keys


def test_the_same_run_again_scores_nothing(run: Run) -> None:
    steps = (run.folder / "steps.jsonl").read_bytes()
    ended = run.launch()
    assert (ended.returncode, ended.stderr) == (0, "")
    summary = run.summary
    assert (summary["candidates_scored"], summary["steps_computed"]) == (0, 0)
    assert {entry["status"] for entry in summary["stages"].values()} == {"reused"}
    assert (run.folder / "steps.jsonl").read_bytes() == steps
    assert read(run.folder / "pruning_config.json") == run.golden["pruning_config"]
