"""What W&B lacks of a run is sent from its processes' logs: every step once, in order."""

import json
import time
from pathlib import Path

import pytest
from wandb_server import WandbServer
from wandb_support import (
    CLOSED,
    RUN_ID,
    log_steps,
    offline_folders,
    records,
    rows,
    start_mirrored_run,
    steps_sent,
    target,
    wait_for,
)

from pipeline.tracking import wandb_session, wandb_sync
from pipeline.tracking.wandb_log import read_log, write_log
from pipeline.tracking.wandb_sync import Sender, Sent, SyncError
from pipeline.tracking.wandb_tracker import WandbTracker

pytest.importorskip("wandb")


def offline_piece(folder: Path, count: int, is_end: bool = False, **shown: object) -> None:
    """A process that could not reach W&B; it is preempted unless it ``is_end``."""
    tracker = WandbTracker(target(folder, mode="offline", **shown), lambda _: None)
    log_steps(tracker, range(count))
    if is_end:
        tracker.summary({"ratio_percent": 9.25})
        tracker.table("candidates", ["unit", "ppl"], [["attn", 12.5]])
    else:
        tracker.preempting()
    tracker.finish(failed=not is_end)


def killed_piece(folder: Path, count: int) -> None:
    with start_mirrored_run(folder, count, "hang") as run:
        assert run.stdout is not None
        assert "logged\n" in iter(run.stdout.readline, "")
        time.sleep(1.5)
        run.kill()


def send(folder: Path) -> Sent | None:
    with Sender() as sender:
        return sender.send(folder)


def test_pieces_become_one_run_in_their_order(tmp_path: Path, server: WandbServer) -> None:
    offline_piece(tmp_path, 3, job_type="prune")
    offline_piece(tmp_path, 6, is_end=True, job_type="evaluate")
    url = f"{server.url}/team/multipruner/runs/{RUN_ID}"
    assert send(tmp_path) == Sent(2, url)
    run = server.runs[RUN_ID]
    assert steps_sent(run) == [0, 1, 2, 3, 4, 5]
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3, 4, 5, 6]
    assert (run.exit_codes, run.preempting, run.state) == ([1, 0], True, "finished")
    assert run.summary["ratio_percent"] == 9.25
    assert run.properties["jobType"] == "evaluate"
    assert any(name.endswith("table.json") for name in server.uploads)
    assert not (tmp_path / "wandb/sync").exists()

    assert send(tmp_path) is None
    assert len(server.runs[RUN_ID].history) == 7


def test_what_a_kill_tore_does_not_stop_the_rest(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setenv("WANDB_MODE", "offline")
        killed_piece(tmp_path, 4)
    (log,) = offline_folders(tmp_path)[0].glob("*.wandb")
    log.write_bytes(log.read_bytes()[:-9])
    offline_piece(tmp_path, 6, is_end=True)
    assert send(tmp_path)
    assert steps_sent(server.runs[RUN_ID]) == [0, 1, 2, 3, 4, 5]


def test_what_has_arrived_before_is_not_sent_again(tmp_path: Path, server: WandbServer) -> None:
    offline_piece(tmp_path, 3)
    assert send(tmp_path)
    offline_piece(tmp_path, 5, is_end=True)
    assert send(tmp_path)
    for marker in tmp_path.rglob("*.synced"):
        marker.unlink()
    assert send(tmp_path)
    run = server.runs[RUN_ID]
    assert steps_sent(run) == [0, 1, 2, 3, 4]
    assert sum("candidates" in row for row in run.history) == 1
    assert run.state == "finished"


@pytest.mark.slow
def test_the_end_of_a_run_whose_server_died_is_sent_later(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_S", 2.0)
    tracker = WandbTracker(target(tmp_path), lambda _: None)
    log_steps(tracker, range(3))
    wait_for(lambda: steps_sent(server.runs[RUN_ID]) == [0, 1, 2] if server.runs else False)
    server.stop()
    log_steps(tracker, range(3, 6))
    tracker.summary({"ratio_percent": 9.25})
    tracker.finish(failed=False)
    with WandbServer(server.runs) as back:
        monkeypatch.setenv("WANDB_BASE_URL", back.url)
        assert send(tmp_path)
        run = back.runs[RUN_ID]
        assert steps_sent(run) == [0, 1, 2, 3, 4, 5]
        assert (run.summary["ratio_percent"], run.state) == (9.25, "finished")
        assert send(tmp_path) is None


def test_a_server_that_dies_meanwhile_is_told_in_a_line_and_gets_the_rest_later(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sync, "AWAY_S", 1.0)
    offline_piece(tmp_path, 3)
    offline_piece(tmp_path, 6, is_end=True)
    server.stop_after_streams(1)
    began = time.monotonic()
    with pytest.raises(SyncError, match="connection was lost"):
        send(tmp_path)
    assert time.monotonic() - began < 15
    assert 0 < len(server.runs[RUN_ID].history) < 7
    with WandbServer(server.runs) as back:
        monkeypatch.setenv("WANDB_BASE_URL", back.url)
        assert send(tmp_path)
        assert steps_sent(back.runs[RUN_ID]) == [0, 1, 2, 3, 4, 5]
        assert back.runs[RUN_ID].state == "finished"


@pytest.mark.usefixtures("key")
def test_without_a_server_nothing_is_marked(tmp_path: Path) -> None:
    offline_piece(tmp_path, 2)
    began = time.monotonic()
    with pytest.raises(SyncError, match=r"cannot be reached, no connection to 127.0.0.1:9"):
        send(tmp_path)
    assert time.monotonic() - began < 5
    assert list(tmp_path.rglob("*.synced")) == []


def test_without_a_key_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(SyncError) as told:
        send(tmp_path)
    assert str(told.value) == f"no API key for {CLOSED}; type: wandb login --host {CLOSED}"


def test_a_log_that_was_written_again_is_read_by_wandb(tmp_path: Path) -> None:
    offline_piece(tmp_path, 400, name="x" * 40_000)  # longer than a block
    (log,) = offline_folders(tmp_path)[0].glob("*.wandb")
    found, is_whole = read_log(log)
    again = tmp_path / log.name
    write_log(again, found)
    assert is_whole
    assert records(again) == records(log)
    again.write_bytes(again.read_bytes()[:-1])
    torn, is_whole = read_log(again)
    assert (len(torn), is_whole) == (len(found) - 1, False)
    assert json.dumps(records(again)[:-1]) == json.dumps(records(log)[: len(records(again)) - 1])


def test_a_run_that_is_launched_again_shows_its_table_once(tmp_path: Path) -> None:
    for _ in range(2):
        offline_piece(tmp_path, 2, is_end=True)
    first, second = (rows(records(folder)) for folder in offline_folders(tmp_path))
    assert ["prune/step" in row for row in first] == [True, True, False]
    assert second == []
