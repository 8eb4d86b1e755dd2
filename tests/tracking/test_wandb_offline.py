import base64
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb_server import WandbServer
from wandb_support import (
    RUN_ID,
    core_pid,
    log_steps,
    of_type,
    offline_folders,
    records,
    rows,
    start_mirrored_run,
    steps,
    target,
    wait_for,
)

from pipeline.tracking import wandb_session
from pipeline.tracking.tracker import Exported
from pipeline.tracking.wandb_session import new_run_id
from pipeline.tracking.wandb_tracker import WandbTracker

pytest.importorskip("wandb")

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def test_run_ids_are_long_and_differ() -> None:
    ids = {new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(run_id) >= 8 and run_id.isalnum() for run_id in ids)


@pytest.mark.parametrize("upload", [False, True])
def test_an_exported_model_is_an_artifact(tmp_path: Path, upload: bool) -> None:
    model = tmp_path / "export" / "hf"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path / "run"), notes.append)
    log_steps(tracker, range(2))
    facts = {"dtype": "float32", "logits_differ_by": 1e-7}
    tracker.model(Exported("llama-9-hf", model, "key", ("9.2pct",), upload, facts))
    tracker.finish(failed=False)
    assert len(notes) == 1, notes
    (process,) = offline_folders(tmp_path / "run")
    (artifact,) = [
        record["request"]["log_artifact"]["artifact"]
        for record in records(process)
        if "log_artifact" in record.get("request", {})
    ] or [record["artifact"] for record in records(process) if "artifact" in record]
    assert (artifact["name"], artifact["type"], sorted(artifact["aliases"])) == (
        "llama-9-hf", "model", ["9.2pct", "latest"]
    )  # fmt: skip
    assert list((tmp_path / "home").iterdir()) == []


def test_without_a_key_everything_is_kept_to_be_sent_later(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    before = dict(os.environ), sys.exit, sys.excepthook
    notes: list[str] = []
    shown = {
        "name": "llama-9",
        "group": "sweep",
        "job_type": "prune",
        "tags": ("a", "b"),
        "config": {"prune": {"target_ratio": 9.0}},
    }
    tracker = WandbTracker(target(folder, **shown), notes.append)
    log_steps(tracker, range(3))
    tracker.summary({"ratio_percent": 9.25})
    tracker.table("candidates", ["step", "unit", "ppl"], [[0, "attn", 12.5], [0, "mlp", None]])
    picture = tmp_path / "series.png"
    picture.write_bytes(PIXEL)
    tracker.picture("series", picture)
    tracker.finish(failed=False)
    tracker.finish(failed=True)

    assert notes == [
        "W&B is offline (no API key; see wandb login); to send the run later: "
        f"multipruner sync {folder}"
    ]
    assert capfd.readouterr() == ("", "")
    assert (dict(os.environ), sys.exit, sys.excepthook) == before
    assert list((tmp_path / "home").iterdir()) == []

    (process,) = offline_folders(folder)
    found = records(process)
    (run,) = of_type(found, "run")
    assert (run["run_id"], run["project"], run["entity"]) == (RUN_ID, "multipruner", "team")
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("llama-9", "sweep", "prune")
    assert run["tags"] == ["a", "b"]
    assert run["config"]["update"]["prune"] == {"target_ratio": 9}
    axes = of_type(found, "metric")
    assert {axis.get("glob_name", axis.get("name")): axis.get("step_metric") for axis in axes} == {
        "prune/step": None,
        "prune/ratio_percent": "prune/step",
        "prune/*": "prune/ratio_percent",
        "probe/*": "prune/ratio_percent",
        "recover/compensate/*": "recover/compensate/tokens",
        "recover/distill/*": "recover/distill/tokens",
        "recover/lora/*": "recover/lora/tokens",
    }
    assert steps(found) == [0, 1, 2]
    assert [row["_step"] for row in rows(found)] == [0, 1, 2, 3, 4]
    assert rows(found)[3]["candidates.nrows"] == 2
    assert (process / "files" / rows(found)[4]["series.path"]).read_bytes() == PIXEL
    assert {"ratio_percent": 9.25} in [update["update"] for update in of_type(found, "summary")]
    assert [end.get("exit_code", 0) for end in of_type(found, "exit")] == [0]


def test_pages_files_and_alerts_reach_wandb(tmp_path: Path) -> None:
    page, decided = tmp_path / "report.html", tmp_path / "steps.jsonl"
    page.write_text("<p>a run</p>")
    decided.write_text("{}\n")
    tracker = WandbTracker(target(tmp_path / "run"), lambda _: None)
    tracker.log({"prune/step": 1, "prune/ratio_percent": 2.0, "prune/unit": "mlp", "prune/ppl": 9.5,
                 "prune/importance": 9.5})  # fmt: skip
    tracker.page("page", page)
    tracker.files("run-decisions", [decided])
    tracker.alert("run: failed", "too hot")
    tracker.finish(failed=True)
    found = records(offline_folders(tmp_path / "run")[0])
    first, second = rows(found)
    assert {name for name in first if name.startswith("prune/")} == {
        "prune/step", "prune/ratio_percent", "prune/ppl", "prune/importance"
    }  # fmt: skip
    assert second["page._type"] == "html-file"
    hidden = {
        axis.get("name") for axis in of_type(found, "metric") if axis["options"].get("hidden")
    }
    assert hidden == {"prune/step", "prune/ratio_percent", "prune/importance"}
    assert "run-decisions" in str(found)
    (alert,) = of_type(found, "alert")
    assert (alert["title"], alert["text"]) == ("run: failed", "too hot")


def test_a_preempted_run_goes_on_in_another_process_and_is_sent_as_one(
    tmp_path: Path, server: WandbServer
) -> None:
    for ended, numbers in ((False, range(3)), (True, range(6))):
        tracker = WandbTracker(target(tmp_path, mode="offline"), lambda _: None)
        log_steps(tracker, numbers)
        if not ended:
            tracker.preempting()
        tracker.finish(failed=not ended)
    assert len(offline_folders(tmp_path)) == 2

    sync = [sys.executable, "-m", "wandb", "sync", *map(str, offline_folders(tmp_path))]
    subprocess.run(sync, check=True, capture_output=True, timeout=60)
    sent = server.runs[RUN_ID]
    assert [row["prune/step"] for row in sent.history] == [0, 1, 2, 3, 4, 5]
    assert [row["_step"] for row in sent.history] == [0, 1, 2, 3, 4, 5]
    assert sent.exit_codes == [1, 0]
    assert sent.preempting


def test_after_a_kill_every_step_is_there_once(tmp_path: Path) -> None:
    with start_mirrored_run(tmp_path, 4, "hang") as run:
        assert run.stdout is not None
        assert "logged\n" in iter(run.stdout.readline, "")
        time.sleep(2)
        run.kill()
    assert steps(records(offline_folders(tmp_path)[0])) == [0, 1, 2, 3]

    tracker = WandbTracker(target(tmp_path), lambda _: None)
    log_steps(tracker, range(6))
    tracker.finish(failed=False)
    assert steps(records(offline_folders(tmp_path)[1])) == [4, 5]


def test_a_signal_that_ends_wandb_core_does_not_end_the_mirror(tmp_path: Path) -> None:
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path), notes.append)
    log_steps(tracker, range(3))
    wait_for(tracker._acts.empty)
    os.kill(core_pid(tracker), signal.SIGTERM)
    log_steps(tracker, range(3, 5))
    tracker.preempting()
    tracker.finish(failed=True)
    first, second = (records(folder) for folder in offline_folders(tmp_path))
    assert steps(first) + steps(second) == [0, 1, 2, 3, 4]
    assert len(of_type(second, "preempting")) == 1
    assert [end["exit_code"] for end in of_type(second, "exit")] == [1]
    assert "W&B's own process ended; starting it again" in notes


def test_a_run_that_nobody_finished_is_a_failed_one(tmp_path: Path) -> None:
    start_mirrored_run(tmp_path, 2, "forget").communicate(timeout=60)
    found = records(offline_folders(tmp_path)[0])
    assert steps(found) == [0, 1]
    assert [end["exit_code"] for end in of_type(found, "exit")] == [1]
    assert of_type(found, "preempting") == []


def test_a_parent_process_with_wandb_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere/socket")
    tracker = WandbTracker(target(tmp_path), lambda _: None)
    log_steps(tracker, range(1))
    tracker.finish(failed=False)
    assert len(offline_folders(tmp_path)) == 1
    assert os.environ["WANDB_SERVICE"] == "3-1-unix-/nowhere/socket"


def test_who_switched_wandb_off_finds_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path), notes.append)
    log_steps(tracker, range(1))
    tracker.finish(failed=False)
    assert notes == ["W&B is switched off (mode disabled)"]
    assert list((tmp_path / "wandb").glob("*run-*")) == []


def test_without_the_package_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path), notes.append)
    log_steps(tracker, range(3))
    tracker.finish(failed=False)
    assert notes == ["W&B is not installed (pip install wandb); the run goes on without it"]


def test_a_key_that_cannot_be_one_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    notes: list[str] = []
    WandbTracker(target(tmp_path), notes.append).finish(failed=False)
    assert "WANDB_API_KEY invalid" in notes[0]
    assert "hunter2" not in notes[0]


def test_what_goes_wrong_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(wandb_session.Session, "_send", refuse)
    notes: list[str] = []
    tracker = WandbTracker(target(tmp_path, mode="offline"), notes.append)
    log_steps(tracker, range(3))
    tracker.finish(failed=False)
    assert [note for note in notes if "offline" not in note] == [
        "W&B: first line; the run goes on, its folder has all of it"
    ]
