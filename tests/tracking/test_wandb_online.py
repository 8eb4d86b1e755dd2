import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb_server import WandbServer
from wandb_support import (
    CLOSED,
    RUN_ID,
    core_pid,
    log_steps,
    offline_folders,
    records,
    start_mirrored_run,
    steps,
    steps_sent,
    target,
    wait_for,
)

from pipeline.tracking import wandb_session, wandb_tracker
from pipeline.tracking.wandb_tracker import WandbTracker

pytest.importorskip("wandb")


def test_two_processes_show_one_run(tmp_path: Path, server: WandbServer, key: str) -> None:
    printed, errors = start_mirrored_run(tmp_path, 3, "finish").communicate(timeout=60)
    assert set(printed.splitlines()) == {
        f"note: W&B: {server.url}/team/multipruner/runs/{RUN_ID}",
        "logged",
    }
    assert errors == ""

    notes: list[str] = []
    shown = {"name": "llama-9", "tags": ("a",), "config": {"prune": {"target_ratio": 9.0}}}
    tracker = WandbTracker(target(tmp_path, **shown), notes.append)
    log_steps(tracker, range(5))
    tracker.summary({"ratio_percent": 9.25})
    tracker.table("candidates", ["unit", "ppl"], [["attn", 12.5]])
    tracker.finish(failed=False)

    assert notes == [f"W&B: {server.url}/team/multipruner/runs/{RUN_ID}"]
    run = server.runs[RUN_ID]
    assert steps_sent(run) == [0, 1, 2, 3, 4]
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3, 4, 5]
    assert run.exit_codes == [0, 0]
    assert run.summary["ratio_percent"] == 9.25
    assert run.summary["candidates"]["nrows"] == 1
    assert server.artifacts == [f"run-{RUN_ID}-candidates"]
    assert run.config["prune"] == {"target_ratio": 9}
    assert run.config["_wandb"]["m"]
    assert (run.properties["displayName"], run.properties["tags"]) == ("llama-9", ["a"])
    assert files_with(key, tmp_path) == []


def files_with(text: str, folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [path for path in files if text.encode() in path.read_bytes()]


def test_a_server_that_dies_costs_the_run_seconds_and_wandb_no_step(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_S", 3.0)
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path), notes.append)
    log_steps(tracker, range(3))
    wait_for(tracker._opened.is_set)
    server.stop()
    began = time.monotonic()
    log_steps(tracker, range(3, 6))
    tracker.summary({"ratio_percent": 9.25})
    tracker.table("candidates", ["unit"], [["attn"]])
    assert time.monotonic() - began < 1
    tracker.finish(failed=False)
    assert time.monotonic() - began < 10
    assert len(notes) == 3
    assert notes[1].startswith("W&B: no connection to 127.0.0.1:")
    assert notes[2] == (
        f"W&B did not confirm everything within 3 s; later: multipruner sync {tmp_path}"
    )

    with WandbServer(server.runs) as back:
        monkeypatch.setenv("WANDB_BASE_URL", back.url)
        again = WandbTracker(target(tmp_path), notes.append)
        log_steps(again, range(6))
        again.finish(failed=False)
        assert steps_sent(back.runs[RUN_ID]) == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("key")
def test_a_server_that_cannot_be_reached_is_given_up_in_seconds(tmp_path: Path) -> None:
    notes: list[str] = []
    began = time.monotonic()
    tracker = WandbTracker(target(tmp_path), notes.append)
    log_steps(tracker, range(2))
    tracker.finish(failed=False)
    assert time.monotonic() - began < 10
    address = CLOSED.removeprefix("http://")
    assert len(notes) == 1
    assert notes[0].startswith(f"W&B is offline (no connection to {address}: Connection refused)")
    assert steps(records(offline_folders(tmp_path)[0])) == [0, 1]


def test_a_server_that_never_answers_is_given_up_too(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 1.0)
    server.hang()
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path), notes.append)
    log_steps(tracker, range(2))
    tracker.finish(failed=False)
    assert len(notes) == 1
    assert notes[0].startswith("W&B is offline (it could not be opened: ")
    assert len(offline_folders(tmp_path)) == 1


def test_finish_waits_for_nothing_that_never_comes(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_tracker, "FINISH_WAIT_S", 2.0)
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path), notes.append)
    core = core_pid(tracker)
    log_steps(tracker, range(2))
    wait_for(tracker._acts.empty)
    server.hang()
    tracker.table("candidates", ["unit"], [["attn"]])
    began = time.monotonic()
    tracker.finish(failed=False)
    assert time.monotonic() - began < 5
    assert notes[1:] == ["W&B did not finish within 2 s; the run goes on"]
    wait_for(lambda: not Path(f"/proc/{core}").exists())


def test_offline_steps_are_sent_by_the_next_process_that_is_online(
    tmp_path: Path, server: WandbServer
) -> None:
    for mode, numbers in (("offline", range(3)), (None, range(5))):
        tracker = WandbTracker(target(tmp_path, mode=mode), lambda _: None)
        log_steps(tracker, numbers)
        tracker.finish(failed=False)
    assert steps_sent(server.runs[RUN_ID]) == [0, 1, 2, 3, 4]

    sync = [sys.executable, "-m", "wandb", "sync", str(tmp_path / "wandb")]
    subprocess.run(sync, check=True, capture_output=True, timeout=60)
    assert steps_sent(server.runs[RUN_ID]) == [0, 1, 2, 3, 4]


def test_an_online_run_survives_wandb_core(tmp_path: Path, server: WandbServer) -> None:
    tracker = WandbTracker(target(tmp_path), lambda _: None)
    log_steps(tracker, range(3))
    wait_for(tracker._acts.empty)
    os.kill(core_pid(tracker), signal.SIGTERM)
    log_steps(tracker, range(3, 5))
    tracker.preempting()
    tracker.finish(failed=True)
    run = server.runs[RUN_ID]
    assert steps_sent(run) == [0, 1, 2, 3, 4]
    assert run.preempting
    assert run.exit_codes == [1]
