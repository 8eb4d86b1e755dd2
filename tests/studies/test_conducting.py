"""A study is carried through: what is on disk alone decides what comes next."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support_inputs import A_FIFTH, TINY, problems_of, save_model, write_tokens

import launch
import pipeline.studies
from pipeline.config.compose import compose_one, override_of
from pipeline.errors import StageError
from pipeline.jobs import studying
from pipeline.plan.sweep import Sweep
from pipeline.report.compare.records import ComparedRun
from pipeline.runs import session
from pipeline.studies import record
from pipeline.studies.base import Kind, Study, Trial


@dataclass
class Halving(Study):
    """Two runs a generation: twice and half of what the best of the last had removed."""

    generations: int = 2
    refused: Sequence[float] = ()
    seen: list[list[Trial]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "halving"

    def next(self, trials: Sequence[Trial]) -> Sequence[Mapping[str, Any]]:
        self.seen.append(list(trials))
        if trials and trials[-1].generation + 1 >= self.generations:
            return ()
        done = [trial.outcome["removed"] for trial in trials if trial.outcome]
        start = max(done, default=20.0)
        return [{"prune.target_ratio": value} for value in (start / 2, start)]

    def outcome(self, run: ComparedRun) -> dict[str, float]:
        if run.target_percent in self.refused:
            raise StageError("it is refused")
        assert run.removed_percent is not None
        return {"removed": run.removed_percent}


@pytest.fixture
def type_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Types a launch of a study; gives what is on disk then."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", num_hidden_layers=3)
    write_tokens(tmp_path / "tokens.json")

    def type_it(study: Study, *arguments: str, status: int = 0) -> dict[str, Any]:
        kind = Kind(lambda _: True, lambda *_: study)
        monkeypatch.setattr(pipeline.studies, "kinds", lambda: [kind])
        monkeypatch.setattr(sys, "argv", ["launch.py", *TINY, *A_FIFTH, *arguments])
        assert launch.main() == status
        path = tmp_path / "outputs/sweeps/halving-model/study.json"
        return dict(json.loads(path.read_text())["studies"]) if path.exists() else {}

    return type_it


def trials_of(studies: Mapping[str, Any]) -> list[dict[str, Any]]:
    ((_, study),) = studies.items()
    return list(study["trials"])


def test_generations_are_proposed_from_what_those_before_gave(
    type_command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    trials = trials_of(type_command(Halving()))
    assert [trial["state"] for trial in trials] == ["done"] * 4
    best = max(trial["outcome"]["removed"] for trial in trials[:2])
    assert [t["values"]["prune.target_ratio"] for t in trials] == [10.0, 20.0, best / 2, best]
    listed = json.loads((tmp_path / "outputs/sweeps/halving-model/sweep.json").read_text())["runs"]
    assert {entry["run"] for entry in listed} == {trial["run"] for trial in trials}
    config = json.loads((Path(trials[3]["run"]) / "launch.json").read_text())["config"]
    assert (config["sweep"]["trial"], config["sweep"]["name"]) == (3, "halving-model")


def test_a_coordinator_that_is_killed_goes_on_with_what_it_proposed(
    type_command: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = trials_of(type_command(Halving()))
    (tmp_path / "outputs").rename(tmp_path / "whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(studying, "carry_through", killed)
        (first, second) = trials_of(type_command(Halving(), status=1))
    assert (first["state"], second["state"]) == ("proposed", "proposed")
    study = Halving()
    with monkeypatch.context() as patch:
        patch.setattr(Halving, "outcome", killed)
        type_command(study, status=1)
    assert study.seen == []  # what is open is done before anything else is proposed
    again = trials_of(type_command(Halving()))
    for trial in (*whole, *again):
        trial.update(gpu_hours=0.0, run=Path(trial["run"]).name)
    assert again == whole


def test_a_failed_run_is_a_failed_trial_and_a_larger_budget_goes_on(
    type_command: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = trials_of(type_command(Halving(refused=[20.0], generations=1)))
    assert [trial["state"] for trial in trials] == ["done", "failed"]
    assert trials[1]["reason"] == "it is refused"
    launched: list[Sweep] = []
    original = studying.carry_through

    def noted(sweep: Sweep, *rest: Any) -> Any:
        launched.append(sweep)
        return original(sweep, *rest)

    monkeypatch.setattr(studying, "carry_through", noted)
    more = trials_of(type_command(Halving(refused=[20.0], generations=2)))
    assert more[:2] == trials
    assert len(more) == 4
    assert len(launched) == 1


def test_a_failed_run_that_is_done_later_counts_from_the_next_generation_on(
    type_command: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = studying.carry_through
    lost: list[Sweep] = []

    def loses_the_first(sweep: Sweep, *rest: Any) -> dict[Path, str]:
        first, *others = sweep.runs
        first.claim()
        lost.append(replace(sweep, runs=(first,)))
        return {first.folder.path: "its node was lost"} | original(
            replace(sweep, runs=tuple(others)), *rest
        )

    with monkeypatch.context() as patch:
        patch.setattr(studying, "carry_through", loses_the_first)
        before = trials_of(type_command(Halving(generations=1)))
    before += trials_of(type_command(Halving(generations=2)))[2:]
    assert [trial["state"] for trial in before] == ["done", "failed", "done", "done"]
    original(lost[0], Console(quiet=True))
    capsys.readouterr()
    trials = trials_of(type_command(Halving(generations=3)))
    assert "trial 1 failed before and is done: it counts" in capsys.readouterr().out
    assert trials[1]["state"] == "done"
    assert trials[1]["outcome"]["removed"] > before[0]["outcome"]["removed"]
    assert trials[1]["gpu_hours"] > 0
    assert [trials[0], *trials[2:4]] == [before[0], *before[2:4]]
    known = [Trial(**trial) for trial in trials]
    for generation in range(3):
        then = [
            replace(trial, outcome=None, state="failed")
            if (trial.counts_from or 0) > generation
            else trial
            for trial in known
            if trial.generation < generation
        ]
        proposed = [trial.values for trial in known if trial.generation == generation]
        assert Halving(generations=3).next(then) == proposed
    assert trials[5]["values"]["prune.target_ratio"] == trials[1]["outcome"]["removed"]


def test_the_end_of_a_study_is_told_once(
    type_command: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    class Mirror:
        def alert(self, title: str, text: str) -> None:
            told.append((title, text))

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setattr(session, "open_mirror", lambda *_: Mirror())
    wanted = ("tracking=wandb", "tracking.alerts=true")
    trials = trials_of(type_command(Halving(refused=[10.0]), *wanted))
    last = Path(trials[-1]["run"])
    metrics = (last / "metrics.jsonl").read_bytes()
    ended = "4 runs, 1 failed; see: multipruner compare halving-model"
    assert told == [(f"{last.name}: study halving-model is done", ended)]
    type_command(Halving(refused=[10.0]), *wanted)  # nothing is left to propose
    assert len(told) == 1
    assert (last / "metrics.jsonl").read_bytes() == metrics != b""


def test_where_every_run_fails_the_same_command_tries_again(
    type_command: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    trials = trials_of(type_command(Halving(refused=[10.0, 20.0]), status=1))
    assert {trial["state"] for trial in trials} == {"proposed"}
    assert "the same command tries them again" in capsys.readouterr().err
    assert {t["state"] for t in trials_of(type_command(Halving()))} == {"done"}


def test_a_value_that_the_schema_refuses_is_a_failed_trial(
    type_command: Callable[..., dict[str, Any]],
) -> None:
    class TooFar(Halving):
        def next(self, trials: Sequence[Trial]) -> Sequence[Mapping[str, Any]]:
            return () if trials else [{"prune.target_ratio": v} for v in (10.0, 120.0)]

    done, failed = trials_of(type_command(TooFar()))
    assert (done["state"], failed["state"]) == ("done", "failed")
    assert "120.0 is wrong; allowed is a number below 100" in failed["reason"]


def test_other_settings_are_another_study(
    type_command: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    type_command(Halving(generations=1))
    type_command(Halving(generations=1), "prune.target_ratio=50")  # the study sets it itself
    capsys.readouterr()
    type_command(Halving(generations=2), "prune.mlp_group_size=4", status=2)
    problem = "prune.mlp_group_size: is 4 here, and the study halving-model began with 8; go on"
    assert problem in capsys.readouterr().err


def test_a_plan_shows_the_first_generation_and_writes_nothing(
    type_command: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert type_command(Halving(), "plan=true") == {}
    assert not (tmp_path / "outputs").exists()
    shown = capsys.readouterr().out
    assert "this is generation 1" in shown
    assert "nothing was submitted" in shown


@pytest.mark.parametrize(
    "text", ["it's, a [test]", "C:\\dir", "it's \\'\\", "true", "plain_name", "", "1e3", "a=b"]
)
def test_text_is_proposed_as_it_is(text: str) -> None:
    composed = compose_one([override_of("tracking.group", text)])
    assert composed.raw.tracking.group == text


def test_numbers_lists_and_options_are_proposed_as_they_are() -> None:
    values = {"prune": "flap", "prune.target_ratio": 12.5, "evaluate.limit": None}
    values |= {"evaluate.tasks": ["piqa", "a b"], "prune.bias": False}
    raw = compose_one([override_of(key, value) for key, value in values.items()]).raw
    assert (raw.prune.method, raw.prune.target_ratio, raw.prune.bias) == ("flap", 12.5, False)
    assert (raw.evaluate.limit, list(raw.evaluate.tasks)) == (None, ["piqa", "a b"])


def test_two_ways_of_proposing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind(lambda _: True, lambda *_: Halving())
    monkeypatch.setattr(pipeline.studies, "kinds", lambda: [kind, kind])
    config: Any = None
    (problem,) = problems_of(lambda: pipeline.studies.study_of(config, config, ()))
    assert problem.endswith("leave one of them out")


def test_what_is_on_disk_is_read_as_it_was_written(tmp_path: Path) -> None:
    trial = Trial(0, {"prune.target_ratio": 12.5}, {"ppl": 3.25}, "done", run="a")
    records = {"one": record.Record({"seed": 1}, (trial,))}
    record.write(tmp_path, records)
    assert record.read(tmp_path) == records
