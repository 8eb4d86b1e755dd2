"""What runs share on disk: nothing is scored twice, and a key holds what decides a result."""

import copy
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import launch
from pipeline.errors import LeaseLostError
from pipeline.files import key_of, publish
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.phases import Phase
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.trajectory import Guard, Trajectory, TrajectoryStore
from pipeline.pruning.units import ATTN, BLOCKS, Candidate
from pipeline.pruning.walk import walk
from pipeline.runs.display import JobLog
from pipeline.scoring.one_pass import OnePass
from pipeline.scoring.perplexity import Windows
from pipeline.stages import prune
from pipeline.stages.base import PlannedStage
from pipeline.store.leases import awaited_lease, holder_of, lease
from pipeline.store.results import Store

REPO = Path(__file__).parents[2]
VOCABULARY, EOS = 41, 2
MLP_GROUP, ATTN_GROUP = 8, 16  # of 48 and 32 channels
BLOCKS_ONLY, MLP_ONLY = [100, 0, 0], [0, 100, 0]
ALL = {"blocks", "mlp_channels", "heads"}

Json = dict[str, Any]
Scoring = tuple[str, Candidate, str]
"""A state, a candidate and the tokens on which it was scored."""


@dataclass
class Workplace:
    """A folder with a model and token ids, from which runs are started in this process."""

    place: Path
    defaults: Json
    scored: list[Scoring] = field(default_factory=list)
    """Every scoring of a candidate so far."""

    @property
    def store(self) -> Path:
        return self.place / "store"

    def settings(self, ratio: float, distribution: Sequence[float], **changes: object) -> Json:
        """``changes`` are KEY__SUBKEY=VALUE."""
        name = f"run-{ratio}-{key_of({'distribution': distribution, 'changes': changes})}"
        settings = copy.deepcopy(self.defaults)
        for key, value in {
            "model__path": str(self.place / "model"),
            "calibration__path": str(self.place / "tokens.json"),
            "prune__target_ratio": float(ratio),
            "prune__distribution": list(distribution),
            "run__dir": str(self.place / name),
            "store__dir": str(self.store),
            **changes,
        }.items():
            section, _, subkey = key.partition("__")
            settings[section][subkey] = value
        return settings

    def run(self, ratio: float, distribution: Sequence[float], **changes: Any) -> "Run":
        """Run to the end as ``launch.py`` does."""
        settings = self.settings(ratio, distribution, **changes)
        already = len(self.scored)
        launch.run(OmegaConf.create(settings), [])
        folder, store = Path(settings["run"]["dir"]), Path(settings["store"]["dir"])
        return Run(folder, store, self.scored[already:])


@dataclass(frozen=True)
class Run:
    """A run that ended."""

    folder: Path
    store: Path
    scored: list[Scoring]

    @property
    def summary(self) -> Json:
        return read(self.folder / "summary.json")

    @property
    def pruning_config(self) -> Json:
        return read(self.folder / "pruning_config.json")

    @property
    def rows(self) -> list[Json]:
        lines = (self.folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def stages(self) -> dict[str, str]:
        return read(self.folder / "stages.json")

    @property
    def stage_folders(self) -> dict[str, Path]:
        return {name: self.store / "stages" / name / key for name, key in self.stages.items()}

    @property
    def status(self) -> dict[str, str]:
        return {name: entry["status"] for name, entry in self.summary["stages"].items()}


def read(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))


def trajectories(store: Path) -> dict[str, str]:
    """The dimension of each trajectory of a store, by the trajectory's key."""
    found = store.glob("trajectories/*/identity.json")
    return {path.parent.name: read(path)["dimension"] for path in found}


def write_model(folder: Path, seed: int = 0) -> None:
    """Six Llama layers with random weights so large that every one of them matters."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=EOS,
    )
    model = LlamaForCausalLM(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        mean = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.normal_(mean, 0.2, generator=generator)
    model.save_pretrained(folder)


def write_tokens(path: Path, block_seed: int = 0, width_seed: int = 1) -> None:
    def rows(seed: int, count: int) -> list[list[int]]:
        draw = random.Random(seed)
        return [[draw.randrange(3, VOCABULARY) for _ in range(16)] for _ in range(count)]

    tokens = {"block": rows(block_seed, 4), "width": rows(width_seed, 2)}
    path.write_text(json.dumps(tokens), encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "model"
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def defaults() -> Json:
    """What the configuration files say, for tiny models."""
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        composed = compose(
            "config",
            [
                "model=hf",
                "run.pictures=[]",
                "model.path=MODEL",
                "model.device=cpu",
                "calibration=tokens",
                f"prune.mlp_group_size={MLP_GROUP}",
                f"prune.attn_group_size={ATTN_GROUP}",
                "score.enabled=false",
                "probe=none",
                "evaluate=none",
                "tracking=none",
            ],
        )
    settings = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(settings, dict)
    return settings


@pytest.fixture
def work(tmp_path: Path, model: Path, defaults: Json, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A workplace that notes every scoring."""
    shutil.copytree(model, tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    workplace = Workplace(tmp_path, defaults)
    losses = OnePass.losses

    def noting(
        self: OnePass,
        live: PrunableModel,
        candidates: Sequence[Candidate],
        windows: Windows,
        *rest: Any,
    ) -> Tensor:
        state = key_of(live.state.identity())
        tokens = key_of({"ids": windows.ids.tolist(), "eos": windows.eos_id})
        workplace.scored += [(state, candidate, tokens) for candidate in candidates]
        return losses(self, live, candidates, windows, *rest)

    monkeypatch.setattr(OnePass, "losses", noting)
    return workplace


# What another ratio or distribution finds on disk


def test_every_scoring_is_counted(work: Workplace) -> None:
    run = work.run(30, [40, 40, 20], score__enabled=True)
    assert run.summary["candidates_scored"] == len(run.scored) > 0
    assert run.summary["steps_computed"] == len(run.rows)
    assert set(run.status.values()) == {"new"}


def test_the_same_run_again_scores_nothing(work: Workplace) -> None:
    first = work.run(30, [40, 40, 20]).pruning_config
    again = work.run(30, [40, 40, 20])
    assert again.scored == []
    assert set(again.status.values()) == {"reused"}
    assert again.pruning_config == first


def test_a_lower_ratio_scores_nothing(work: Workplace) -> None:
    high = work.run(30, BLOCKS_ONLY)
    low = work.run(15, BLOCKS_ONLY)
    assert low.scored == []
    assert low.summary["candidates_scored"] == low.summary["steps_computed"] == 0
    assert 0 < len(low.rows) < len(high.rows)
    assert low.rows == high.rows[: len(low.rows)]


def test_a_higher_ratio_scores_only_the_new_steps(work: Workplace) -> None:
    low = work.run(15, BLOCKS_ONLY)
    high = work.run(30, BLOCKS_ONLY)
    new = high.rows[len(low.rows) :]
    assert high.rows[: len(low.rows)] == low.rows
    assert len(high.scored) == sum(len(row["candidates"]) for row in new) > 0
    assert high.summary["candidates_scored"] == len(high.scored)
    assert high.summary["steps_computed"] == len(new)


def test_another_distribution_shares_the_steps_of_the_blocks(work: Workplace) -> None:
    blocks = work.run(30, BLOCKS_ONLY)
    half = work.run(30, [50, 50, 0])
    shared = [row for row in half.rows if row["dimension"] == "blocks"]
    assert 0 < len(shared) < len(blocks.rows)
    assert shared == blocks.rows[: len(shared)]
    assert {candidate.unit.name for _, candidate, _ in half.scored} == {"mlp_width"}


def test_a_distribution_with_more_blocks_goes_on_from_the_steps_of_one_with_fewer(
    work: Workplace,
) -> None:
    half = work.run(30, [50, 50, 0])
    shared = [row for row in half.rows if row["dimension"] == "blocks"]
    blocks = work.run(30, BLOCKS_ONLY)
    assert blocks.rows[: len(shared)] == shared
    assert blocks.summary["steps_computed"] == len(blocks.rows) - len(shared)


def test_a_distribution_in_other_units_is_the_same_run(work: Workplace) -> None:
    percent = work.run(20, [50, 40, 10])
    shares = work.run(20, [5, 4, 1])
    assert shares.stages == percent.stages


def test_the_scores_of_the_blocks_are_the_first_step_of_the_run(work: Workplace) -> None:
    run = work.run(30, BLOCKS_ONLY, score__enabled=True)
    sensitivity = read(run.stage_folders["score"] / "sensitivity.json")
    assert run.rows[0]["candidates"] == sensitivity["blocks"]["candidates"]
    assert max(Counter(run.scored).values()) == 1


def test_scoring_the_dense_model_after_a_run_adds_only_the_widths(work: Workplace) -> None:
    work.run(30, BLOCKS_ONLY)
    run = work.run(30, BLOCKS_ONLY, score__enabled=True)
    assert {candidate.unit.name for _, candidate, _ in run.scored} == {"mlp_width", "attn_width"}
    assert run.status == {"calibrate": "reused", "score": "new", "prune": "reused"}


def test_a_run_that_begins_with_the_mlps_begins_with_their_scores(work: Workplace) -> None:
    run = work.run(5, MLP_ONLY, score__enabled=True)
    sensitivity = read(run.stage_folders["score"] / "sensitivity.json")
    assert run.rows[0]["candidates"] == sensitivity["mlp_channels"]["candidates"]
    assert max(Counter(run.scored).values()) == 1


def test_nothing_is_scored_twice_across_runs_in_one_store(work: Workplace) -> None:
    for ratio, distribution, scores in [
        (20, [50, 40, 10], False),
        (10, [50, 40, 10], True),
        (30, BLOCKS_ONLY, True),
        (30, [40, 60, 0], True),
        (30, [40, 40, 20], False),
        (25, [44, 52, 4], True),
        (12, MLP_ONLY, True),
        (15, [0, 50, 50], True),
        (8, [0, 0, 100], False),
        (35, [44, 52, 4], True),
    ]:
        run = work.run(ratio, distribution, score__enabled=scores)
        assert run.summary["candidates_scored"] == len(run.scored)
    assert {candidate.unit.name for _, candidate, _ in work.scored} == {
        "attn",
        "mlp",
        "attn_width",
        "mlp_width",
    }
    assert [what for what, times in Counter(work.scored).items() if times > 1] == []


def test_the_order_of_runs_changes_no_result(work: Workplace) -> None:
    runs = [(30, [40, 40, 20]), (20, BLOCKS_ONLY), (25, [10, 80, 10])]
    ahead = [work.run(*run, store__dir=str(work.place / "ahead")) for run in runs]
    behind = [work.run(*run, store__dir=str(work.place / "behind")) for run in reversed(runs)]
    for one, other in zip(ahead, reversed(behind), strict=True):
        assert one.rows == other.rows
        assert one.pruning_config == other.pruning_config


def test_a_run_that_ended_holds_nothing(work: Workplace) -> None:
    work.run(30, [40, 40, 20], score__enabled=True)
    leased = [path.parent for path in work.store.rglob("leases")]
    assert leased
    assert [folder for folder in leased if holder_of(folder) is not None] == []


# What makes a key


NO_EFFECT: dict[str, Callable[[Path], Json]] = {
    "memory": lambda _: {"scoring__memory_fraction": 0.1},
    "offload": lambda _: {"model__offload": "disk"},
    "run name": lambda place: {"run__name": "other", "run__dir": str(place / "other")},
    "model path": lambda place: {"model__path": copied(place / "model", place / "elsewhere")},
    "calibration path": lambda place: {
        "calibration__path": copied(place / "tokens.json", place / "elsewhere.json")
    },
    "settings of datasets that are drawn from": lambda _: {
        "calibration__seqlen": 7,
        "calibration__block_samples": 9,
    },
}


def copied(source: Path, target: Path) -> str:
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return str(target)


@pytest.mark.parametrize("change", NO_EFFECT)
def test_what_decides_nothing_changes_no_key(work: Workplace, change: str) -> None:
    first = work.run(20, [40, 40, 20], score__enabled=True)
    before = trajectories(work.store)
    shutil.rmtree(work.store / "stages")  # so that the second run looks for its steps
    again = work.run(20, [40, 40, 20], score__enabled=True, **NO_EFFECT[change](work.place))
    assert again.folder != first.folder
    assert again.stages == first.stages
    assert set(again.status.values()) == {"new"}
    assert again.scored == []
    assert trajectories(work.store) == before


def test_another_store_has_the_same_keys(work: Workplace) -> None:
    first = work.run(20, [40, 40, 20])
    other = work.run(20, [40, 40, 20], store__dir=str(work.place / "other"))
    assert other.stages == first.stages
    assert trajectories(other.store) == trajectories(first.store)
    assert other.scored == first.scored


def test_a_store_that_was_moved_still_has_its_results(work: Workplace) -> None:
    work.run(20, [40, 40, 20])
    moved = work.place / "moved"
    work.store.rename(moved)
    assert work.run(20, [40, 40, 20], store__dir=str(moved)).scored == []


def other_tokens(**seeds: int) -> Callable[[Path], Json]:
    def write(place: Path) -> Json:
        write_tokens(place / "other.json", **seeds)
        return {"calibration__path": str(place / "other.json")}

    return write


def other_weights(place: Path) -> Json:
    write_model(place / "other", seed=1)
    return {"model__path": str(place / "other")}


def other_architecture(place: Path) -> Json:
    folder = Path(copied(place / "model", place / "other"))
    config = read(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    return {"model__path": str(folder)}


DECIDING: dict[str, tuple[Callable[[Path], Json], set[str]]] = {
    "dtype": (lambda _: {"model__dtype": "bfloat16"}, ALL),
    "attention kernel": (lambda _: {"model__attn_implementation": "eager"}, ALL),
    "weight reorder": (lambda _: {"prune__weight_reorder": False}, ALL),
    "MLP group size": (lambda _: {"prune__mlp_group_size": 2 * MLP_GROUP}, {"mlp_channels"}),
    "attention group size": (lambda _: {"prune__attn_group_size": 2 * ATTN_GROUP}, {"heads"}),
    "tokens for blocks": (other_tokens(block_seed=2), {"blocks"}),
    "tokens for widths": (other_tokens(width_seed=2), {"mlp_channels", "heads"}),
    "weights": (other_weights, ALL),
    "architecture": (other_architecture, ALL),
}


@pytest.mark.parametrize("change", DECIDING)
def test_what_decides_a_result_changes_its_key_and_no_other(work: Workplace, change: str) -> None:
    """Here every dimension starts at the dense model, so that none depends on another."""
    make, dimensions = DECIDING[change]
    first = work.run(20, BLOCKS_ONLY, score__enabled=True)
    before = trajectories(work.store)
    assert set(before.values()) == ALL
    other = work.run(20, BLOCKS_ONLY, score__enabled=True, **make(work.place))
    assert other.stages["score"] != first.stages["score"]
    assert other.stages["prune"] != first.stages["prune"]
    new = {k: dimension for k, dimension in trajectories(work.store).items() if k not in before}
    assert set(new.values()) == dimensions
    assert len(new) == len(dimensions)


def test_a_weight_file_that_changed_in_place_is_another_model(work: Workplace) -> None:
    first = work.run(15, BLOCKS_ONLY)
    write_model(work.place / "model", seed=1)
    other = work.run(15, BLOCKS_ONLY, run__dir=str(work.place / "after the change"))
    assert other.stages["prune"] != first.stages["prune"]
    assert other.summary["steps_computed"] == len(other.rows) > 0


# What other processes do meanwhile


TWO_LAYERS = ModelShape.repeated(2, BlockShape(8, 8, 100, 0), BlockShape(8, 1, 100, 0), 1000)
STEPS = [
    Step.choose([ScoredCandidate(Candidate(ATTN, layer, 0), 2.0 + layer)]) for layer in range(2)
]


@dataclass
class Waiting:
    """Does something where a walk waits; fails if anything is scored."""

    meanwhile: Callable[[str], object]

    def on_wait(self, holder: str) -> None:
        self.meanwhile(holder)

    def on_computed(self, index: int, step: Step) -> None:
        pytest.fail("a step was scored that another process takes")

    def on_read(self, index: int) -> None: ...


def first_steps(trajectory: Trajectory, on_wait: Callable[[str], object]) -> list[Step]:
    """The first two steps of blocks; fails if anything is scored."""

    def decide(*_: object) -> Step:
        pytest.fail("a step was scored that another process takes")

    phase = Phase("blocks", BLOCKS, end_percent=100)
    start = PruningState.dense(TWO_LAYERS)
    with closing(walk(trajectory, phase, start, 0, decide, {}, Waiting(on_wait))) as steps:
        return [each.decision for each in islice(steps, len(STEPS))]


def test_steps_that_another_process_takes_are_read_as_they_appear(tmp_path: Path) -> None:
    trajectory = TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"})
    coming = iter(enumerate(STEPS))
    with lease(trajectory.folder) as others_guard:
        assert others_guard is not None
        steps = first_steps(
            trajectory, on_wait=lambda _: trajectory.record(*next(coming), {}, others_guard)
        )
    assert steps == STEPS


def test_steps_taken_just_before_the_lock_was_given_are_not_scored_again(tmp_path: Path) -> None:
    @contextmanager
    def lock_after_the_other(folder: Path, *_: object) -> Iterator[Guard | None]:
        other = TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"})
        for index, step in enumerate(STEPS):
            other.record(index, step, {}, lambda: None)
        with lease(folder) as guard:
            yield guard

    trajectory = TrajectoryStore(tmp_path, lock_after_the_other).open({"start": "dense"})
    steps = first_steps(trajectory, on_wait=lambda _: pytest.fail("nobody holds the lock"))
    assert steps == STEPS


def test_a_wait_for_each_step_of_another_process_is_over_when_the_step_is_there(
    tmp_path: Path,
) -> None:
    entered: list[int] = []
    waits: list[int] = []
    other = TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"})

    @contextmanager
    def lock_that_another_has(*_: object) -> Iterator[Guard | None]:
        index = len(waits)
        waits.append(len(entered))
        entered.append(index)
        other.record(index, STEPS[index], {}, lambda: None)
        yield None
        entered.remove(index)

    trajectory = TrajectoryStore(tmp_path, lock_that_another_has).open({"start": "dense"})
    assert first_steps(trajectory, on_wait=lambda _: None) == STEPS
    assert waits == [0, 0], "no wait is kept while the next one goes on"


# What counts as finished


def test_only_the_marker_makes_a_stage_finished(work: Workplace) -> None:
    run = work.run(20, [40, 40, 20])
    wanted = run.pruning_config
    (run.stage_folders["prune"] / "done.json").unlink()
    (run.stage_folders["prune"] / "pruning_config.json").write_text('{"pruned_attn_idx": [')
    again = work.run(20, [40, 40, 20])
    assert again.status == {"calibrate": "reused", "prune": "new"}
    assert again.scored == [], "its steps are still there"
    assert again.pruning_config == wanted


def test_a_torn_calibration_without_its_marker_is_made_again(work: Workplace) -> None:
    wanted = work.run(30, [40, 40, 20], store__dir=str(work.place / "undisturbed"))
    first = work.run(20, [40, 40, 20])
    (first.stage_folders["calibrate"] / "done.json").unlink()
    (first.stage_folders["calibrate"] / "tokens.safetensors").write_bytes(b"torn")
    run = work.run(30, [40, 40, 20])
    assert run.status == {"calibrate": "new", "prune": "new"}
    assert run.rows == wanted.rows


def test_a_stage_that_another_one_was_still_running_is_not_reported_as_reused(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = work.run(20, BLOCKS_ONLY)
    stage = run.stage_folders["prune"]
    (stage / "done.json").unlink()

    def give_up(_: JobLog, note: str) -> None:
        assert note.startswith("waiting: process")
        raise KeyboardInterrupt

    monkeypatch.setattr(JobLog, "note", give_up)
    with lease(stage), pytest.raises(KeyboardInterrupt):
        work.run(20, BLOCKS_ONLY)
    assert run.summary["status"] == "failed"
    assert run.status["calibrate"] == "reused"
    assert run.status.get("prune") != "reused"


def test_a_run_takes_over_where_a_half_written_step_was_left(work: Workplace) -> None:
    wanted = work.run(30, BLOCKS_ONLY, store__dir=str(work.place / "undisturbed"))
    low = work.run(15, BLOCKS_ONLY)
    ((trajectory, _),) = trajectories(work.store).items()
    steps = work.store / "trajectories" / trajectory / "steps"
    (steps / f".{len(low.rows):05d}.json.0a1b2c3d.tmp").write_text('{"chosen": {"unit"')
    high = work.run(30, BLOCKS_ONLY)
    assert high.rows == wanted.rows
    assert high.summary["steps_computed"] == len(high.rows) - len(low.rows)


# Files are whole or absent


def test_of_two_writers_the_first_one_wins(tmp_path: Path) -> None:
    assert publish(tmp_path / "step.json", "first")
    assert not publish(tmp_path / "step.json", "second")
    assert (tmp_path / "step.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["step.json"]


def test_of_two_writers_of_a_step_both_go_on_with_the_first_ones(tmp_path: Path) -> None:
    one, other = (
        TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"}) for _ in range(2)
    )
    assert one.record(0, STEPS[0], {}, lambda: None) == STEPS[0]
    assert other.record(0, STEPS[1], {}, lambda: None) == STEPS[0]


def test_of_many_writers_at_once_one_wins_and_nobody_reads_a_part(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    texts = [str(writer) * 200_000 for writer in range(8)]
    start = threading.Barrier(len(texts))
    read_texts: list[str] = []
    winners: list[str] = []

    def write(text: str) -> None:
        start.wait(timeout=30)
        if publish(path, text):
            winners.append(text)
        read_texts.append(path.read_text())

    for _ in range(10):
        threads = [threading.Thread(target=write, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(winners) == 1
        assert read_texts == winners * len(texts)
        path.unlink()
        winners.clear()
        read_texts.clear()


PUBLISH_WITHOUT_END = """
import itertools, pathlib, sys
from pipeline.files import publish
for i in itertools.count():
    publish(pathlib.Path(sys.argv[1]) / f"{i:05d}.json", str(i % 10) * 1_000_000)
    print(i, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.01, 0.02, 0.03, 0.04])
def test_a_writer_that_is_killed_leaves_whole_files_only(tmp_path: Path, after_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISH_WITHOUT_END, str(tmp_path)],
        cwd=REPO,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(after_s)
        writer.send_signal(signal.SIGKILL)
    published = sorted(tmp_path.glob("[0-9]*.json"))
    assert published
    for i, path in enumerate(published):
        assert path.name == f"{i:05d}.json"
        assert path.read_text() == str(i % 10) * 1_000_000


def test_half_written_files_are_no_steps(tmp_path: Path) -> None:
    trajectory = TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"})
    steps = trajectory.folder / "steps"
    steps.mkdir()
    (steps / ".00000.json.0a1b2c3d.tmp").write_text("{")
    assert trajectory.read(0) is None
    assert trajectory.record(0, STEPS[0], {}, lambda: None) == STEPS[0]


def test_a_step_is_not_published_without_the_lease(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLostError("another process has taken over")

    trajectory = TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"})
    with pytest.raises(LeaseLostError):
        trajectory.record(0, STEPS[0], {}, lost)
    assert trajectory.read(0) is None


def test_a_stage_is_not_marked_as_finished_without_the_lease(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLostError("another process has taken over")

    stage, store = PlannedStage(prune.STAGE, "prune", {"target_ratio": 20.0}), Store(tmp_path)
    with pytest.raises(LeaseLostError):
        store.commit(stage, {"steps": 1}, lost)
    assert store.finished(stage) is None


def test_the_first_result_of_a_stage_stands(tmp_path: Path) -> None:
    stage, store = PlannedStage(prune.STAGE, "prune", {"target_ratio": 20.0}), Store(tmp_path)
    assert store.commit(stage, {"steps": 1}, lambda: None) == {"steps": 1}
    assert store.commit(stage, {"steps": 2}, lambda: None) == {"steps": 1}
