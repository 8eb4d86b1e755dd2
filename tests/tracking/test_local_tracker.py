import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tracking.metrics import Metrics
from pipeline.tracking.tracker import LocalTracker, Trackers

ENDLESS = """
import itertools, sys
from pathlib import Path
from pipeline.tracking.tracker import LocalTracker
tracker = LocalTracker(Path(sys.argv[1]))
for step in itertools.count():
    tracker.log({"prune/step": step, "filling": "x" * 500})
    if step == 1000:
        print("going", flush=True)
"""


def lines(path: Path) -> list[Metrics]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_a_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    tracker = LocalTracker(path)
    assert lines(path) == []
    for step in range(3):
        tracker.log({"prune/step": step, "prune/unit": "attn"})
        assert len(lines(path)) == step + 1
    tracker.summary({"ratio": 1.0})
    tracker.table("candidates", ["layer"], [[1]])
    tracker.picture("series", tmp_path / "absent.png")
    tracker.preempting()
    tracker.finish(failed=False)
    tracker.finish(failed=False)
    assert lines(path) == [{"prune/step": step, "prune/unit": "attn"} for step in range(3)]


def test_the_replay_after_a_restart_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for steps in (3, 5):
        tracker = LocalTracker(path)
        for step in range(steps):
            tracker.log({"prune/step": step})
    assert [line["prune/step"] for line in lines(path)] == [0, 1, 2, 3, 4]


def test_a_process_that_lost_the_run_does_not_write_into_its_successors_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    loser = LocalTracker(path)
    loser.log({"prune/step": 0})
    successor = LocalTracker(path)
    loser.log({"prune/step": 1})
    successor.log({"prune/step": 0})
    assert lines(path) == [{"prune/step": 0}]


def test_a_kill_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert path.read_bytes().endswith(b"\n")
    found = lines(path)
    assert [line["prune/step"] for line in found] == list(range(len(found)))
    assert len(found) > 1000


def test_a_line_that_fits_only_in_part_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = LocalTracker(path)
    tracker.log({"prune/step": 0})
    write = os.write
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", lambda file, text: write(file, text[:5]))
        with pytest.raises(OSError, match="5 of 18 bytes"):
            tracker.log({"prune/step": 1})
    tracker.log({"prune/step": 1})
    assert [line["prune/step"] for line in lines(path)] == [0, 1]


def test_several_trackers_are_told_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    both = Trackers(LocalTracker(path) for path in paths)
    both.log({"prune/step": 0})
    both.summary({})
    both.table("t", ["a"], iter([[1]]))
    both.picture("p", tmp_path / "p.png")
    both.preempting()
    both.finish(failed=True)
    assert [lines(path) for path in paths] == [[{"prune/step": 0}]] * 2
