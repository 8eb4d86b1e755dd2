"""A search over real runs, from the command line to its page."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support_inputs import TINY, save_model, save_tokenizer, write_tokens

import launch
from pipeline.report.compare.study import Goal, Reading, SearchedRun, SearchReport
from pipeline.studies.pareto import front, history, hypervolume
from pipeline.studies.reading import searches
from pipeline.studies.record import read

SEARCH = (
    "+sweep=pareto",
    "study.space.prune.target_ratio={low: 5, high: 12}",
    "study.space.prune.distribution.step=50",
    "study.runs=6",
    "study.method=nsga2",
    "study.population=3",
    "study.constraints=['ppl <= dense * 50']",
    "prune.mlp_group_size=8",
    "prune.attn_group_size=8",
    "evaluate.text=text.txt",
    "evaluate.seqlen=16",
    "score.enabled=false",
    "sweep.name=tiny",
)
Type = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def type_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Types a launch of the search; gives its trials."""
    monkeypatch.chdir(tmp_path)
    save_tokenizer(save_model(tmp_path / "model", num_hidden_layers=3))
    write_tokens(tmp_path / "tokens.json")
    (tmp_path / "text.txt").write_text("A text that nobody has learnt. " * 8, encoding="utf-8")

    def type_it(*arguments: str, status: int = 0) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["launch.py", "-m", *TINY, *SEARCH, *arguments])
        assert launch.main() == status
        path = tmp_path / "outputs/sweeps/tiny/study.json"
        return list(json.loads(path.read_text())["studies"]["tiny"]["trials"])

    return type_it


def test_a_search_is_carried_through_extended_and_compared(
    type_search: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = type_search()
    assert [trial["generation"] for trial in trials] == [0] * 3 + [1] * 3
    assert {trial["state"] for trial in trials} == {"done"}
    folder = tmp_path / "outputs/sweeps/tiny"
    shown = capsys.readouterr().out
    assert "tiny: generation 2, 3 runs" in shown
    assert "runs that no other beats" in shown
    assert "target_ratio: too few runs say how much it matters; on the front" in shown
    for trial in trials:
        summary = json.loads((Path(trial["run"]) / "summary.json").read_text())
        assert trial["outcome"]["ppl"] == summary["evaluation"]["pruned"]["ppl"]
        assert trial["outcome"]["dense ppl"] == summary["evaluation"]["dense"]["ppl"]
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert "Hypervolume" in page
    assert "What the search found" in (folder / "comparison.html").read_text(encoding="utf-8")

    longer = type_search("study.runs=7")
    assert longer[:6] == trials
    assert len(longer) == 7
    assert "7 runs, 3 at a time by nsga2, seed 0: minimize ppl, maximize ratio" in (
        folder / "study.html"
    ).read_text(encoding="utf-8")

    type_search("study.runs=7", "study.seed=1", status=2)
    error = capsys.readouterr().err
    assert "study.seed: is 1 here, and the study tiny began with 0; go on with what it" in error


def test_a_constraint_that_no_run_meets_shows_the_nearest(
    type_search: Type, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = type_search("study.constraints=['ppl <= 2']", "study.runs=3")
    nearest = min(trials, key=lambda trial: float(trial["outcome"]["ppl"]))
    shown = " ".join(capsys.readouterr().out.split())
    assert f"no run met the constraints; nearest is trial {nearest['number']} " in shown


def test_the_hypervolume_is_what_a_grid_counts() -> None:
    """An independent count of the unit cells that lie between points and reference."""
    points = [(1, 5, 2), (2, 2, 4), (4, 1, 1), (3, 3, 3), (1, 6, 6), (7, 0, 0)]
    reference = (6, 6, 6)
    cells = {
        (x, y, z)
        for px, py, pz in points
        for x in range(px, 6)
        for y in range(py, 6)
        for z in range(pz, 6)
    }
    assert hypervolume(points, reference) == len(cells)
    flat = [point[:2] for point in points]
    assert hypervolume(flat, (6, 6)) == len({(x, y) for x, y, _ in cells} | {
        (x, y) for px, py in flat for x in range(px, 6) for y in range(py, 6)
    })  # fmt: skip
    assert [flat[place] for place in front(flat)] == [(1, 5), (2, 2), (4, 1), (7, 0)]
    assert list(history([None, (4, 4), (5, 5), (2, 2)], (6, 6))) == [0, 4, 4, 16]


def test_keys_that_decide_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    from test_search import search, through

    from pipeline.studies.record import Record, write

    study = search(runs=36, method="random", constraints=[])
    write(tmp_path, {"one": Record(study.identity, tuple(through(study)))})
    (report,) = searches(read(tmp_path), [])
    assert isinstance(report, SearchReport)
    weights = report.importance["ratio"]
    assert max(weights, key=lambda key: weights[key]) == "target_ratio"
    assert sum(weights.values()) == pytest.approx(1)
    said = {answer.question: answer.text for answer in report.answers}
    assert said["target_ratio"].startswith("decides (")
    assert re.search(r"the last of \d generations added [\d.]+ % of it$", said["How far it came"])
    assert "hardly matters" in said["mlp_group_size"] or "matters" in said["mlp_group_size"]


def test_runs_whose_intervals_overlap_are_not_told_apart() -> None:
    goals = (Goal("accuracy", "%", True), Goal("decode_ms", "ms", False))

    def run(number: int, accuracy: float, time: float) -> SearchedRun:
        readings = (Reading(accuracy, (accuracy - 1, accuracy + 1)), Reading(time))
        return SearchedRun(number, 0, {}, readings, on_front=True)

    runs = (run(0, 55.0, 9.0), run(1, 54.5, 7.0), run(2, 50.0, 5.0))
    report = SearchReport("x", "", goals, (), runs, (40.0, 10.0), (1.0, 2.0, 3.0), {})
    said = {answer.question: answer.text for answer in report.answers}
    assert said["Highest accuracy"] == (
        "trial 0: accuracy 55.00 (54.00 to 56.00) %, decode_ms 9.00 ms; "
        "in this it cannot be told from trials 1"
    )
    assert "told" not in said["Lowest decode_ms"]
    assert said["All goals together"].startswith("trial 2: ")
