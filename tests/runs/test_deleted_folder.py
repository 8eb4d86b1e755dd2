"""A run's folder that is deleted while the run goes on: all of it is written again."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support_jobs import Job, after_steps, furnished, place, prepared

from pipeline.jobs.launching import run_here
from pipeline.pruning.records import StepRecord
from pipeline.runs import session
from pipeline.runs.display import JobLog, Quiet
from pipeline.runs.runner import StageRunner
from pipeline.runs.session import needs_conclusion, run_part
from pipeline.store.leases import holder_of
from pipeline.store.summary import Summary

__all__ = ["place"]
Patch = pytest.MonkeyPatch
RESULTS = ("pruning_config.json", "steps.jsonl", "metrics.jsonl", "config.yaml", "stages.json")
WARNED = "was deleted while its run went on; it is written again"


@dataclass(frozen=True)
class Undisturbed:
    """The folder of the same run that nothing happened to."""

    files: set[str]
    contents: dict[str, bytes]
    candidates_scored: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    with Patch.context() as patch:
        furnished(tmp_path_factory.mktemp("undisturbed"), patch)
        job = Job.of(prepared("run.name=same"))
        assert job.do() == 0
        folder = job.run.folder.path
        contents = {name: (folder / name).read_bytes() for name in RESULTS}
        summary = Summary.read(folder)
        assert summary
        return Undisturbed(names(folder), contents, summary.candidates_scored)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"cancelled.json"}


def delete(folder: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(folder)


def once(patch: Patch, owner: Any, name: str, before: Callable[[], object]) -> None:
    """Have something happen before the first call of a function."""
    original, calls = getattr(owner, name), []

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            before()
        return original(*arguments, **named)

    patch.setattr(owner, name, called)


def assert_whole(folder: Path, undisturbed: Undisturbed) -> None:
    assert names(folder) == undisturbed.files
    assert {name: (folder / name).read_bytes() for name in RESULTS} == undisturbed.contents
    summary = Summary.read(folder)
    assert summary
    assert summary.status == "done"
    assert summary.candidates_scored == undisturbed.candidates_scored
    assert holder_of(folder / "tracking") is None


def at_a_step(patch: Patch, act: Callable[[], None]) -> None:
    after_steps(patch, 2, act)


def as_prune_ends(patch: Patch, act: Callable[[], None]) -> None:
    once(patch, StageRunner, "_summary", act)


def as_it_is_drawn(patch: Patch, act: Callable[[], None]) -> None:
    once(patch, session, "report_of", act)


def as_it_is_tracked(patch: Patch, act: Callable[[], None]) -> None:
    once(patch, session, "_track_outcome", act)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("when", [at_a_step, as_prune_ends, as_it_is_drawn, as_it_is_tracked])
def test_a_job_writes_the_folder_again(
    undisturbed: Undisturbed,
    monkeypatch: Patch,
    capsys: pytest.CaptureFixture[str],
    when: Callable[[Patch, Callable[[], None]], None],
) -> None:
    job = Job.of(prepared("run.name=same"))
    folder = job.run.folder
    claimed = json.loads((folder.path / "run.json").read_text("utf-8"))
    when(monkeypatch, delete(folder.path))
    assert (job.do(), job.end) == (0, ("done", None))
    assert_whole(folder.path, undisturbed)
    assert json.loads((folder.path / "run.json").read_text("utf-8")) == claimed
    assert WARNED in capsys.readouterr().out
    assert not needs_conclusion(job.run)


@pytest.mark.usefixtures("place")
def test_a_run_in_this_process_writes_it_again(
    undisturbed: Undisturbed, monkeypatch: Patch
) -> None:
    run = prepared("run.name=same", "cluster=inline")
    folder = run.folder.path

    def meanwhile(display: JobLog, step: StepRecord, computed: bool) -> None:
        if step.step == 1 and not (folder / "kept").exists():
            shutil.rmtree(folder)
            run.folder.restore()
            (folder / "kept").touch()

    monkeypatch.setattr(JobLog, "step", meanwhile)
    screen = io.StringIO()
    run_here(run, Console(file=screen))
    assert WARNED in screen.getvalue()
    (folder / "kept").unlink()
    texts = {name: (folder / name).read_bytes() for name in RESULTS if name != "config.yaml"}
    assert texts == {n: t for n, t in undisturbed.contents.items() if n != "config.yaml"}
    assert names(folder) == undisturbed.files


@pytest.mark.usefixtures("place")
def test_a_stage_that_tells_no_steps_leaves_a_folder_that_others_go_on_with(
    undisturbed: Undisturbed, monkeypatch: Patch
) -> None:
    job = Job.of(prepared("run.name=same"))
    run = job.run
    once(monkeypatch, StageRunner, "_summary", delete(run.folder.path))
    run_part(run, {"calibrate"}, Quiet(Console(quiet=True)), lambda _: None)
    assert job.do() == 0
    assert_whole(run.folder.path, undisturbed)


@pytest.mark.usefixtures("place")
def test_a_launch_meanwhile_gets_all_of_it(undisturbed: Undisturbed, monkeypatch: Patch) -> None:
    job = Job.of(prepared("run.name=same"))
    folder = job.run.folder.path

    def launched_anew() -> None:
        shutil.rmtree(folder)
        prepared("run.name=same").claim()

    after_steps(monkeypatch, 2, launched_anew)
    assert job.do() == 0
    assert_whole(folder, undisturbed)


def test_a_folder_that_another_run_has_now_is_left_alone(place: Path, monkeypatch: Patch) -> None:
    job = Job.of(prepared("run.name=same"))
    folder = job.run.folder.path

    def given_away() -> None:
        shutil.rmtree(folder)
        prepared("run.name=same", "prune.target_ratio=10").claim()

    after_steps(monkeypatch, 2, given_away)
    assert job.do() == 1
    outcome, error = job.end
    assert outcome == "stopped"
    assert error == (
        f"{folder.absolute()} was deleted and belongs to another run now; this one stops, its "
        "steps are kept"
    )
    assert names(folder) <= {"run.json", "config.yaml", "stages.json", "launch.json"}


def test_a_folder_that_is_gone_before_the_job_starts_is_named(place: Path) -> None:
    job = Job.of(prepared())
    shutil.rmtree(job.run.folder.path)
    assert job.do() == 1
    outcome, error = job.end
    assert outcome == "failed"
    assert str(job.run.folder.path) in (error or "")
    assert not job.run.folder.path.exists()
