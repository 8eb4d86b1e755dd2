"""Candidates divided over processes: the same losses, and nobody is left hanging."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ranked_process
import torch
from support_inputs import REPOSITORY, TINY, save_model, write_tokens

import launch
from pipeline.distributed.ranks import by_cost, divide
from pipeline.distributed.rendezvous import Ranks, ranks_of_torchrun
from pipeline.pruning.passes import costs
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS, LAYERS, MLP_CHANNELS

PROCESS = Path(__file__).with_name("ranked_process.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
SECONDS = 15
"""In which the others must end after one has died; far below any time limit of gloo."""
BUSY_S = 60

Job = list[subprocess.Popen[str]]


@pytest.fixture
def started() -> Iterator[Job]:
    processes: Job = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(started: Job, *pauses_s: float) -> Job:
    """A job of as many ranks as there are pauses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for rank, pause_s in enumerate(pauses_s):
        numbers = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": len(pauses_s),
            "MASTER_PORT": port,
        }
        started.append(
            subprocess.Popen(
                [sys.executable, str(PROCESS), str(pause_s)],
                env=ENVIRONMENT
                | {"MASTER_ADDR": "127.0.0.1"}
                | {name: str(number) for name, number in numbers.items()},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def wait_until_it_scores(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert process.stderr.readline() == "scoring\n"


def test_work_is_divided_by_cost() -> None:
    shares = by_cost([9, 8, 7, 6, 5, 4, 3, 2], 2)
    assert shares == [[0, 3, 4, 7], [1, 2, 5, 6]]
    assert by_cost([1, 1, 10], 2) == [[2], [0, 1]]
    assert by_cost([3], 3) == [[0], [], []]
    assert by_cost([], 2) == [[], []]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("windows", [1, 2, 5, 11, 22])
@pytest.mark.parametrize("costs", [[], [9], [5, 5, 5], list(range(68, 4, -1))])
def test_every_loss_is_asked_of_one_rank(costs: list[int], windows: int, ranks: int) -> None:
    shares = divide(64, costs, windows, ranks)
    asked = [(row, window) for s in shares for row in s.rows for window in s.windows]
    assert len(shares) == ranks
    assert sorted(asked) == [(row, w) for row in range(len(costs)) for w in range(windows)]


def test_windows_are_divided_where_that_is_done_first() -> None:
    """Four finalists of a race would walk the trunk twice; windows that go evenly do not."""
    assert [share.windows for share in divide(64, [60, 50, 40, 30], 22, 2)] == [
        range(11),
        range(11, 22),
    ]
    assert [share.rows for share in divide(4, [60, 50, 40, 30], 3, 2)] == [[0, 3], [1, 2]]
    one_step = [cost + 4 for cost in range(1, 65)]
    for ranks, least in ((2, 0.99), (4, 0.92), (8, 0.9)):
        shares = divide(64, one_step, 22, ranks)
        longest = max((64 + sum(one_step[r] for r in s.rows)) * len(s.windows) for s in shares)
        assert (64 + sum(one_step)) * 22 / ranks / longest > least


def test_a_candidate_costs_the_blocks_from_its_own_up() -> None:
    block = BlockShape(width=8, group_width=1, params=80, fixed_params=0)
    dense = PruningState.dense(ModelShape.repeated(3, block, block, 480))
    assert costs(dense, dense.candidates(BLOCKS, 0)) == (6, [10, 8, 6, 9, 7, 5])
    assert costs(dense, dense.candidates(LAYERS, 0)) == (6, [10, 8, 6])
    state = dense.without(dense.candidates(BLOCKS, 0)[1])
    assert costs(state, state.candidates(MLP_CHANNELS, 2)) == (5, [8, 7, 5])


def test_a_removal_does_not_move_what_lies_below_it() -> None:
    block = BlockShape(width=8, group_width=1, params=80, fixed_params=0)
    state = PruningState.dense(ModelShape.repeated(8, block, block, 1280))
    for index in (12, 7, 3):
        before = owners(state)
        gone = state.candidates(BLOCKS, 0)[index]
        state = state.without(gone)
        after = owners(state)
        below = [c for c in after if (c.layer, c.unit.name) < (gone.layer, gone.unit.name)]
        assert all(before[c] == after[c] for c in below)


def owners(state: PruningState) -> dict:
    candidates = state.candidates(BLOCKS, 0)
    shares = by_cost(costs(state, candidates)[1], 2)
    return {candidates[row]: rank for rank, share in enumerate(shares) for row in share}


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_losses_of_one_process(started: Job, ranks: int) -> None:
    leader, *workers = start(started, *[0.0] * ranks)
    alone = ranked_process.score()
    out, errors = leader.communicate(timeout=60)
    assert (leader.returncode, errors) == (0, "")
    for worker in workers:
        assert (*worker.communicate(timeout=SECONDS), worker.returncode) == ("", "", 0)
    for ranked, single in zip(json.loads(out), alone, strict=True):
        torch.testing.assert_close(ranked, single, rtol=1e-12, atol=0)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("pause_s", [BUSY_S, 0], ids=["rank 0 scores", "rank 0 waits"])
def test_a_dead_worker_ends_the_job(started: Job, pause_s: float) -> None:
    leader, worker = start(started, pause_s, BUSY_S)
    wait_until_it_scores(worker)
    if pause_s:
        wait_until_it_scores(leader)
    worker.kill()
    out, errors = leader.communicate(timeout=SECONDS)
    assert (leader.returncode, out) == (1, "")
    assert errors == (
        "error: rank 1 of 2 is gone (it was killed, or its machine died); every step that was "
        "finished is kept, and the same launch goes on from there\n"
    )


@pytest.mark.usefixtures("warm")
def test_a_failing_worker_says_why(started: Job) -> None:
    leader, _ = start(started, 0, ranked_process.BROKEN)
    out, errors = leader.communicate(timeout=SECONDS)
    assert (leader.returncode, out) == (1, "")
    assert "rank 1 of 2 is gone (its last words: OSError: the GPU fell off the bus); " in errors


@pytest.mark.usefixtures("warm")
def test_workers_end_with_rank_0(started: Job) -> None:
    leader, worker = start(started, BUSY_S, BUSY_S)
    for process in (leader, worker):
        wait_until_it_scores(process)
    leader.kill()
    assert worker.communicate(timeout=SECONDS) == ("", "")
    assert worker.returncode == 1


@pytest.mark.usefixtures("interrupts", "warm")
def test_an_interrupted_rank_0_dismisses_the_workers(started: Job) -> None:
    leader, worker = start(started, BUSY_S, BUSY_S)
    for process in (leader, worker):
        wait_until_it_scores(process)
    for process in (worker, leader):  # as a terminal does
        process.send_signal(signal.SIGINT)
    assert worker.communicate(timeout=SECONDS) == ("", "")
    assert worker.returncode == 0
    leader.wait(timeout=SECONDS)


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
ARGUMENTS = (
    *TINY,
    "prune.target_ratio=20",
    "prune.distribution=[1,1,1]",
    "prune.mlp_group_size=4",
    "prune.attn_group_size=8",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_model(tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    return tmp_path


def under_torchrun(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *TORCHRUN, str(REPOSITORY / "launch.py"), *ARGUMENTS, *arguments],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def trajectories(store: Path) -> list[str]:
    """The keys of all trajectories there, which hold everything that identifies them."""
    return [path.name for path in (store / "trajectories").iterdir() if path.is_dir()]


@pytest.mark.usefixtures("warm")
def test_torchrun_decides_as_one_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = under_torchrun(place, "run.dir=ranked", "store.dir=a")
    assert (ranked.returncode, ranked.stderr) == (0, "")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["launch.py", *ARGUMENTS, "run.dir=alone", "store.dir=b"])
    assert launch.main() == 0
    ranked_store, alone_store = ({*trajectories(place / name)} for name in ("a", "b"))
    assert ranked_store == alone_store
    lines = [
        (place / run / "steps.jsonl").read_text("utf-8").splitlines() for run in ("alone", "ranked")
    ]
    for one, two in zip(*(map(json.loads, run) for run in lines), strict=True):
        for key in ("dimension", "unit", "layer", "width_after"):
            assert one[key] == two[key]
        assert one["importance"] == pytest.approx(two["importance"], rel=1e-6)


@pytest.mark.usefixtures("warm")
def test_a_wrong_configuration_is_told_once(place: Path) -> None:
    ended = under_torchrun(place, "run.dir=run", "prune.target_ratio=200")
    assert ended.returncode != 0
    assert ended.stderr.count("The configuration is wrong:") == 1
    assert not (place / "run").exists()


def test_torchrun_is_recognised() -> None:
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert ranks_of_torchrun(torchrun | {"MASTER_ADDR": "a"}) == Ranks(3, 4, 1, 2, "env://")
    assert ranks_of_torchrun(torchrun | {"MASTER_ADDR": "a", "WORLD_SIZE": "1"}) is None
    assert ranks_of_torchrun({}) is None
