"""Recovered models in the table of a run, and among runs that are compared."""

import json
import math
from dataclasses import replace
from pathlib import Path

from support_compare import SETTINGS, put, text, write_run, write_sweep
from support_report import bare, full, record

from pipeline.jobs.comparing import gather
from pipeline.measure.paired import paired_ends
from pipeline.measure.record import Record, TaskScore
from pipeline.report.charts.held_out_perplexity import of_comparison
from pipeline.report.compare.answers import answers
from pipeline.report.compare.paper_formats import to_latex
from pipeline.report.compare.paper_table import paper_table
from pipeline.report.compare.records import read_run
from pipeline.report.data import RunReport
from pipeline.report.dense_and_pruned import dense_and_pruned
from pipeline.report.headline import headlines
from pipeline.report.table import dense_and_pruned_table, in_a_line
from pipeline.report.wording import signed
from pipeline.screen import screen


def recover(folder: Path, technique: str, ppl: float) -> Path:
    """Make a written run one that recovered, and evaluated all three models."""
    owner = json.loads((folder / "run.json").read_text())
    put(
        folder / "run.json",
        owner | {"config": owner["config"] | {"recover": {"steps": [technique]}}},
    )
    state = read_run(folder).pruning
    assert state is not None
    sides = {"dense": 14.2, "pruned": 30.0, "recovered": ppl}
    of_side = {name: replace(record(state, 0), texts=(text(each),)) for name, each in sides.items()}
    put(folder / "evaluation.json", {name: each.to_json() for name, each in of_side.items()})
    return folder


def test_the_table_has_what_came_back_of_the_lost_log_perplexity() -> None:
    report = full()
    (evaluated,) = report.evaluations
    assert evaluated.pruned is not None
    score = evaluated.pruned.texts[0]
    better = replace(evaluated.pruned, texts=(replace(score, ppl=19.0),))
    rows = dense_and_pruned(replace(report, evaluations=(replace(evaluated, recovered=better),)))
    shown = [
        (row.recovered, row.back) for row in rows if row.label.startswith("Perplexity: WikiText-2")
    ]
    assert shown == [("19.00", "51 % back")]  # ln(23.87 / 19) / ln(23.87 / 15.31)
    assert not any(row.recovered for row in dense_and_pruned(report))
    assert "perplexity after recovery 19.00 (+24.1 %)" in in_a_line(
        replace(report, evaluations=(replace(evaluated, recovered=better),))
    )
    cost = headlines(replace(report, evaluations=(replace(evaluated, recovered=better),)))[1]
    assert (cost.title, cost.value) == ("Cost", "+24.1 %")  # 19 / 15.31
    assert cost.quantity.endswith(", after recovery")
    assert cost.details[0].endswith("15.31 → 23.87, 19.00 after recovery")


def test_what_recovery_watched_is_told_where_nothing_else_measured_it() -> None:
    report = replace(bare(), watched={"stories": (7.53, 7.19)})
    (row,) = [row for row in dense_and_pruned(report) if row.recovered]
    assert row.label == "Perplexity: held-out text of recovery, stories"
    assert (row.dense, row.pruned, row.recovered, row.back) == ("", "7.53", "7.19", "")
    assert in_a_line(report).endswith(", recovery: 7.53 → 7.19 on stories")
    (evaluated,) = full().evaluations
    better = (replace(evaluated, recovered=evaluated.pruned),)
    measured = replace(full(), evaluations=better, watched=report.watched)
    assert "stories" not in in_a_line(measured)
    assert not [row for row in dense_and_pruned(measured) if "of recovery" in row.label]


def test_points_of_accuracy_that_came_back_have_their_interval() -> None:
    report = full()
    answers = {"dense": "1111", "pruned": "1100", "recovered": "1110"}
    dense, pruned, recovered = (answered(report, items * 50) for items in answers.values())
    evaluated = replace(report.evaluations[0], dense=dense, pruned=pruned, recovered=recovered)
    report = replace(report, evaluations=(evaluated,))
    (row,) = [row for row in dense_and_pruned(report) if "Accuracy" in row.label]
    assert row.recovered == "75.0 ± 3.1 %"
    low, high = paired_ends(recovered.tasks, pruned.tasks) or (0.0, 0.0)
    assert 15 < low < 25 < high < 35
    assert row.back == f"+25.0 points ({signed(low)} to {signed(high)})"
    assert "accuracy after recovery 75.0 ± 3.1 % (+25.0 points by it)" in in_a_line(report)


def answered(report: RunReport, items: str) -> Record:
    """With one task, of which these items are right."""
    assert report.dense is not None
    share = items.count("1") / len(items)
    error = math.sqrt(share * (1 - share) / len(items))
    task = TaskScore("story_choice", len(items), share, error, None, None, items)
    return replace(report.dense, tasks=(task,))


def test_a_fifth_column_leaves_labels_whole_words() -> None:
    report = full()
    (evaluated,) = report.evaluations
    told = replace(report, evaluations=(replace(evaluated, recovered=evaluated.pruned),))
    console = screen(width=80)
    with console.capture() as captured:
        console.print(dense_and_pruned_table(told))
    text = captured.get()
    assert "│ Accuracy: mean" in text
    assert "│ WikiText-2" in text
    below = [line.strip() for line in text.splitlines()][-3:]
    assert below[0] == "Perplexity: WikiText-2 test, 341,000 tokens, windows of 2,048"


def test_runs_are_compared_by_the_recovered_model_and_joined_to_the_pruned_one(
    tmp_path: Path,
) -> None:
    assert "recover" not in SETTINGS
    runs = [
        recover(write_run(tmp_path / "a", 20), "compensate", 24.0),
        recover(write_run(tmp_path / "b", 20), "distill", 20.0),
        write_run(tmp_path / "c", 20, ppl=30.0),
    ]
    comparison, _ = gather([str(write_sweep(tmp_path / "sweep", runs))], None)
    found = {run.name: run for run in comparison.runs}
    perplexities = {name: run.perplexity() for name, run in found.items()}
    assert {name: each and each.value for name, each in perplexities.items()} == {
        "a": 24.0, "b": 20.0, "c": 30.0,
    }  # fmt: skip
    assert found["c"].before_recovery is None
    told = {answer.question: answer.text for answer in answers(comparison.runs)}
    assert "removed the same" not in told["20 % to remove"]
    table = paper_table(comparison.runs)
    (place,) = (i for i, name in enumerate(table.columns) if name.endswith("↓"))
    rows = [row for block in table.blocks for row in block]
    marked = {row[place].text for row in rows if row[0].text.endswith(" †")}
    assert marked == {"24.00", "20.00"}
    assert any(note.startswith("† ") for note in table.notes)
    assert not any("†" in note for note in paper_table([found["c"]]).notes)
    assert r"\textdagger{}" in to_latex(table)

    (chart, *_) = of_comparison(comparison)
    arrows = [line for line in chart.lines if line.stroke.dash == "dotted"]
    assert [[point.y for point in line.points] for line in arrows] == [[30.0, 24.0], [30.0, 20.0]]
    assert {line.marker.shape for line in arrows} == {"triangle-down"}
