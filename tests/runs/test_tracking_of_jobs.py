"""Of the processes of a run one at a time tracks it; one that is preempted says so."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support_jobs import place, prepared

from pipeline.plan.run import Run
from pipeline.runs import session
from pipeline.runs.display import JobLog
from pipeline.runs.interruption import Interrupted

__all__ = ["place"]


class Recorder:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def preempting(self) -> None:
        self.calls.append("preempting")

    def finish(self, failed: bool) -> None:
        self.calls.append(("finish", failed))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    def opened(*_: object) -> Recorder:
        return recorder

    monkeypatch.setattr(session, "open_tracker", opened)
    return recorder


def tracking(folder: Path, check: Callable[[], None] = lambda: None) -> Any:
    run = SimpleNamespace(folder=SimpleNamespace(path=folder), config=None)
    return session._tracking(run, {"prune"}, JobLog(check))  # type: ignore[arg-type]


def test_a_preempted_process_says_so_before_it_finishes(tmp_path: Path, recorder: Recorder) -> None:
    with pytest.raises(Interrupted), tracking(tmp_path):
        raise Interrupted("stopped")
    assert recorder.calls == ["preempting", ("finish", True)]


def test_an_end_without_error_is_no_failure(tmp_path: Path, recorder: Recorder) -> None:
    with tracking(tmp_path) as tracker:
        assert tracker is recorder
    assert recorder.calls == [("finish", False)]


def test_a_second_process_waits_until_the_first_one_is_done(
    tmp_path: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as first:
        first.enter_context(tracking(tmp_path))
        with tracking(tmp_path, first.close) as second:
            assert second is recorder
            assert recorder.calls == [("finish", False)]
    told = capsys.readouterr().out
    assert told == f"waiting: process {os.getpid()} on {os.uname().nodename} tracks {tmp_path}\n"


def test_who_waits_to_track_stops_when_it_is_asked_to(tmp_path: Path, recorder: Recorder) -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    with tracking(tmp_path), pytest.raises(Interrupted), tracking(tmp_path, stop):
        pytest.fail("another process tracks")
    assert recorder.calls == [("finish", False)]


def parts(run: Run) -> Iterator[tuple[str, bool]]:
    """The stages of a run, done one after the other as jobs do; whether each was tracked."""
    for name in run.plan.by_name:
        session.run_part(run, {name}, JobLog(lambda: None), lambda _: None)
        yield name, (run.folder.path / "tracking").exists()


def test_only_stages_that_tell_of_steps_take_the_lease(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared()
    run.claim()
    assert dict(parts(run)) == {"calibrate": False, "score": False, "prune": True}
    rows = (run.folder.path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == 1 + run.folder.steps_written()  # the dense model's is the first
