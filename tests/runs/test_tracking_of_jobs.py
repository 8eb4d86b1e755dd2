"""Of the processes of a run one at a time tracks it; one that is preempted says so."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.runs import session
from pipeline.runs.display import JobLog
from pipeline.runs.interruption import Interrupted


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
    monkeypatch.setattr(session, "TRACKER_WAIT_S", 0.0)
    return recorder


def tracking(folder: Path) -> Any:
    run = SimpleNamespace(folder=SimpleNamespace(path=folder), config=None)
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    return session._tracking(run, {"prune"}, JobLog(nothing))  # type: ignore[arg-type]


def test_a_preempted_process_says_so_before_it_finishes(tmp_path: Path, recorder: Recorder) -> None:
    with pytest.raises(Interrupted), tracking(tmp_path):
        raise Interrupted("stopped")
    assert recorder.calls == ["preempting", ("finish", True)]


def test_an_end_without_error_is_no_failure(tmp_path: Path, recorder: Recorder) -> None:
    with tracking(tmp_path) as (tracker, tracks):
        assert (tracker, tracks) == (recorder, True)
    assert recorder.calls == [("finish", False)]


def test_a_second_process_does_not_track(tmp_path: Path, recorder: Recorder) -> None:
    with tracking(tmp_path), tracking(tmp_path) as (second, tracks):
        assert (second is recorder, tracks) == (False, False)
