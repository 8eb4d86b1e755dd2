import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support_compare import METHODS, large_sweep, put, write_method, write_run, write_sweep
from support_report import ATTACK, WIKITEXT2, Tags

from pipeline.commands import cli
from pipeline.jobs.comparing import gather
from pipeline.report.charts import figures_of_comparison
from pipeline.report.charts.base import Chart, LayerMap, Point
from pipeline.report.charts.comparison import DENSE_MARKER
from pipeline.report.charts.sections import OVER_LATENCY, OVER_REMOVED
from pipeline.report.charts.trade_offs import pareto_front
from pipeline.report.compare.answers import answers, notes
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.groups import differing_keys, groups
from pipeline.report.compare.published import FIVE_TASKS, PAPER, published_for
from pipeline.report.compare.records import ComparedRun, read_run
from pipeline.report.compare.table import published_rows, rows, runs_tables, to_csv
from pipeline.report.output import write_comparison
from pipeline.report.pages.comparison import comparison_page
from pipeline.report.wording import NOTHING, TIMES
from pipeline.screen import screen

LLAMA = {"model__path": "meta-llama/Llama-2-7b-hf"}


def read(*folders: Path) -> list[ComparedRun]:
    return [read_run(folder) for folder in folders]


def charts(runs: Sequence[ComparedRun]) -> list[Chart]:
    """Every quantity over the removed share."""
    return [chart for chart in _charts(runs) if chart.section == OVER_REMOVED]


def trade_offs(runs: Sequence[ComparedRun]) -> list[Chart]:
    """Quality against latency."""
    return [chart for chart in _charts(runs) if chart.section == OVER_LATENCY]


def _charts(runs: Sequence[ComparedRun]) -> list[Chart]:
    figures = figures_of_comparison(Comparison("x", tuple(runs)))
    return [figure for figure in figures if isinstance(figure, Chart)]


def maps(runs: Sequence[ComparedRun]) -> list[LayerMap]:
    """What is left of the layers of every run."""
    figures = figures_of_comparison(Comparison("x", tuple(runs)))
    return [figure for figure in figures if isinstance(figure, LayerMap)]


def told(runs: list[ComparedRun]) -> dict[str, str]:
    return {answer.question: answer.text for answer in answers(runs)}


@pytest.fixture
def large(tmp_path: Path) -> Comparison:
    return gather([str(large_sweep(tmp_path))], None)[0]


def test_a_line_joins_runs_that_differ_only_in_their_ratio(large: Comparison) -> None:
    found = groups(large.runs)
    assert [group.label for group in found] == ["44:52:4", "100:0:0", "0:100:0", "20:80:0", "gone"]
    assert [len(group.runs) for group in found] == [5, 5, 5, 5, 1]
    ratios = [run.removed_percent for run in found[0].runs]
    assert ratios == sorted(ratios, key=lambda ratio: ratio or 0)
    assert differing_keys(large.runs) == ["prune.target_ratio", "prune.distribution"]


def test_how_a_run_is_executed_tells_nothing_apart(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 10, cluster__name="slurm", tracking__name="wandb"),
        write_run(tmp_path / "b", 20, sweep__name="ratio", scoring__memory_fraction=0.5),
    )
    assert len(groups(runs)) == 1
    assert differing_keys(runs) == ["prune.target_ratio"]


def test_runs_that_were_scored_in_other_precisions_are_two_lines(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 10), write_run(tmp_path / "b", 10, scoring__precision="mixed")
    )
    assert [group.label for group in groups(runs)] == ["precision model", "precision mixed"]


def test_what_the_last_launch_measured_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 10)
    first = read_run(folder).settings
    (folder / "config.yaml").write_text("prune: {target_ratio: 10.0}\nevaluate: {limit: 7}\n")
    assert (first["evaluate.limit"], read_run(folder).settings["evaluate.limit"]) == (None, 7)


def test_other_measurements_of_the_same_pruning_are_one_group(tmp_path: Path) -> None:
    runs = read(write_run(tmp_path / "a", 10), write_run(tmp_path / "b", 20, evaluate__limit=100))
    assert [group.label for group in groups(runs)] == ["44:52:4"]
    assert "evaluate.limit" in differing_keys(runs)


def test_a_label_says_what_distinguishes(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 10, calibration__dataset="c4"),
        write_run(tmp_path / "b", 10, (1, 0, 0)),
    )
    assert [g.label for g in groups(runs)] == [
        "44:52:4, calibration c4",
        "1:0:0, calibration alpaca",
    ]


def test_methods_are_a_line_each_with_their_name_first(tmp_path: Path) -> None:
    folders = [
        write_method(tmp_path / f"runs/{method}-{ratio}", method, ratio)
        for method in METHODS
        for ratio in (10, 20)
    ]
    assert [group.label for group in groups(read(*folders))] == list(METHODS)
    assert [len(group.runs) for group in groups(read(*folders))] == [2] * 4
    assert differing_keys(read(*folders))[:2] == ["prune.target_ratio", "prune.method"]
    assert [group.label for group in groups(read(folders[2], folders[3]))] == ["blockpruner"]
    other_shares = write_run(tmp_path / "other", 10, (20, 80, 0), calibration__dataset="c4")
    assert [group.label for group in groups(read(*folders[:3], other_shares))] == [
        "multipruner, 44:52:4, calibration alpaca",
        "blockpruner, calibration alpaca",
        "multipruner, 20:80:0, calibration c4",
    ]
    sweep = write_sweep(tmp_path / "sweeps/s", folders)
    listed = json.loads((sweep / "sweep.json").read_text())
    listed["runs"].append({"run": "/gone", "overrides": ["prune=random", "prune.target_ratio=30"]})
    (sweep / "sweep.json").write_text(json.dumps(listed))
    found = {group.label: group.runs for group in groups(gather([str(sweep)], None)[0].runs)}
    assert [run.name for run in found["random"]] == ["random-10", "random-20", "gone"]


def test_a_methods_own_settings_are_named_where_its_runs_differ_in_them(tmp_path: Path) -> None:
    folders = [
        write_method(tmp_path / "one", "random", 10, prune__seed=1),
        write_method(tmp_path / "shortgpt", "shortgpt", 10, prune__units="layers"),
        write_method(tmp_path / "two", "random", 10, prune__seed=2),
    ]
    found = [group.label for group in groups(read(*folders))]
    assert found == ["random, seed 1", "shortgpt", "random, seed 2"]
    assert [group.label for group in groups(read(*folders[:2]))] == ["random", "shortgpt"]


def test_a_missing_run_belongs_to_the_group_that_its_overrides_name(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "runs/a", 10, (44, 52, 4)),
        write_run(tmp_path / "runs/b", 10, (100, 0, 0)),
    ]
    sweep = write_sweep(tmp_path / "sweeps/s", runs)
    listed = json.loads((sweep / "sweep.json").read_text())
    gone = {"run": "/gone", "overrides": ["prune.target_ratio=20", "prune.distribution=[100,0,0]"]}
    listed["runs"].append(gone)
    (sweep / "sweep.json").write_text(json.dumps(listed))
    found = groups(gather([str(sweep)], None)[0].runs)
    assert [[run.name for run in group.runs] for group in found] == [["a"], ["b", "gone"]]


def test_unfinished_runs_are_told_of_and_never_drawn(large: Comparison) -> None:
    assert sorted(run.state for run in large.runs if not run.is_done) == [
        "failed", "missing", "running",
    ]  # fmt: skip
    for chart in [*charts(large.runs), *trade_offs(large.runs)]:
        drawn = [p for line in chart.lines for p in line.points if p.marker != DENSE_MARKER]
        assert len(drawn) == 18
    assert "1 failed, 1 running and 1 missing" in " ".join(large.notes)
    # What a failed run removed before it stopped is shown, and says so.
    assert [m.subtitle for m in maps(large.runs) if "failed" in m.subtitle] == ["3.7 %, failed"]


def test_the_dense_model_is_a_hundred_percent(large: Comparison) -> None:
    relative = [chart for chart in charts(large.runs) if chart.scale == "relative"]
    assert [c.title for c in relative] == [
        "Prefill speed", "Decode speed", "Peak memory", "KV cache",
    ]  # fmt: skip
    for chart in relative:
        assert [level.value for level in chart.levels] == [100]
        starts = [line.points[0] for line in chart.lines]
        assert all(start.marker == DENSE_MARKER and start.x == 0 for start in starts)
    assert len([chart for chart in charts(large.runs) if chart.scale == "absolute"]) == 4


def test_devices_share_neither_line_nor_front(tmp_path: Path) -> None:
    runs = read(*(
        write_run(tmp_path / f"{device}{ratio}", ratio, device=device, accuracy=worth)
        for device, worth in (("H100", 0.5), ("A100", 0.4))
        for ratio in (10, 20)
    ))  # fmt: skip
    assert len(groups(runs)) == 1
    speed = next(chart for chart in charts(runs) if "speed" in chart.title)
    assert len(speed.lines) == 2
    assert [line.stroke.dash for line in speed.lines] == ["solid", "dashed"]
    assert len({line.stroke.colour for line in speed.lines}) == 1
    for chart in trade_offs(runs):
        assert len(chart.fronts) == 2
    assert any("no line joins runs of different devices" in note for note in notes(runs))
    assert "H100" in comparison_page(Comparison("two", tuple(runs)))


def test_other_lengths_are_another_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 10)
    summary = json.loads((folder / "summary.json").read_text())
    summary["measured"]["pruned"]["latencies"][0]["prompt_tokens"] = 64
    (folder / "summary.json").write_text(json.dumps(summary))
    runs = read(folder)
    assert not [c for c in charts(runs) if c.title == "Prefill speed"
                and c.scale == "relative"]  # fmt: skip


def timed_as(folder: Path, side: str = "pruned", **changes: object) -> None:
    """Another latency of a run's main workload."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["measured"][side]["latencies"][0] |= changes
    (folder / "summary.json").write_text(json.dumps(summary))


def test_other_ways_of_timing_share_neither_line_nor_front(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(ratio), ratio, accuracy=0.5) for ratio in (10, 20)]
    timed_as(folders[1], "dense", way="eager")
    timed_as(folders[1], way="eager")
    runs = read(*folders)
    speed = next(chart for chart in charts(runs) if "speed" in chart.title)
    assert len(speed.lines) == 2
    for chart in trade_offs(runs):
        assert len(chart.fronts) == 2


def test_no_speed_wins_within_the_intervals(tmp_path: Path) -> None:
    def between(low: float, high: float) -> dict[str, object]:
        interval = {"median": (low + high) / 2, "low": low, "high": high}
        timing = {"median_ms": 9.0, "p95_ms": 9.0, "repeats": 5}
        return {"way": "turns", "speed_up": {"prefill": interval, "decode": interval,
                "dense_prefill": timing, "dense_decode": timing}}  # fmt: skip

    folders = [
        write_run(tmp_path / name, 10, shares, accuracy=0.5)
        for name, shares in (("a", (44, 52, 4)), ("b", (90, 6, 4)))
    ]
    timed_as(folders[0], **between(1.2, 1.4))
    timed_as(folders[1], **between(1.3, 1.5))
    assert "fastest" not in told(read(*folders))["10 % to remove"]
    timed_as(folders[1], **between(1.41, 1.5))
    assert f"decodes fastest, 1.41–1.50{TIMES} dense" in told(read(*folders))["10 % to remove"]  # noqa: RUF001
    gentle = write_run(tmp_path / "c", 10, accuracy=0.595)
    timed_as(gentle, **between(0.9, 1.1))
    alone = told(read(gentle))
    assert any("prefill as fast as dense, as far as can be told" in text for text in alone.values())


def test_the_latency_of_the_workload_that_is_named_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "outputs/runs/a", 10)
    summary = json.loads((folder / "summary.json").read_text())
    for side, decode_ms in (("dense", 80.0), ("pruned", 60.0)):
        (first,) = summary["measured"][side]["latencies"]
        timing = {"median_ms": decode_ms, "p95_ms": decode_ms, "repeats": 9}
        long = {**first, "workload": "long", "prompt_tokens": 2048, "decode": timing}
        summary["measured"][side]["latencies"].append(long)
    (folder / "summary.json").write_text(json.dumps(summary))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "a", "--workload", "long", "--out", "long"]) == 0
    (row,) = csv.DictReader((tmp_path / "long" / "comparison.csv").open())
    assert (float(row["decode_ms_per_token"]), float(row["dense_decode_ms_per_token"])) == (60, 80)
    assert "1 × 2048 + 128 tokens" in row["latency_of"]  # noqa: RUF001
    assert cli.main(["compare", "a", "--workload", "short"]) == 2
    said = capsys.readouterr().err
    assert "--workload: 'short' was not timed in these runs; allowed is default, long" in said


def test_within_the_intervals_no_point_beats_another() -> None:
    def point(x: float, y: float) -> Point:
        return Point(x, y, "", (y - 1, y + 1), reach=(x - 0.5, x + 0.5))

    beside, worse, slower = point(10, 50.5), point(10, 48.5), point(11.5, 51)
    best = point(10, 51)
    assert pareto_front([best, beside]) == (best, beside)
    assert pareto_front([best, worse]) == (best,)
    assert pareto_front([best, slower]) == (best,)


def test_the_pareto_front() -> None:
    points = [Point(x, y, "") for x, y in ((1, 1), (2, 3), (2, 2), (3, 2.5), (4, 4), (5, 4))]
    assert [(p.x, p.y) for p in pareto_front(points)] == [(1, 1), (2, 3), (4, 4)]
    assert [(p.x, p.y) for p in pareto_front(points, upwards=False)] == [(1, 1)]


def test_a_clear_winner_is_named(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 20, (44, 52, 4), accuracy=0.456, stderr=0.015),
        write_run(tmp_path / "b", 20, (100, 0, 0), accuracy=0.35, stderr=0.015),
    )
    text = told(runs)["20 % to remove"]
    assert text.startswith("44:52:4 keeps most accuracy: 45.6 ± 0.9 %")


def test_within_the_noise_no_winner_is_named(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 20, (44, 52, 4), accuracy=0.456, stderr=0.03, ppl=30.0),
        write_run(tmp_path / "b", 20, (100, 0, 0), accuracy=0.45, stderr=0.03, ppl=20.0),
    )
    text = told(runs)["20 % to remove"]
    assert "cannot be told apart" in text
    assert "keeps most" not in text
    assert "100:0:0 has the lowest perplexity, 20.00" in text


def test_runs_that_ended_in_the_same_model_are_not_ranked(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 20, calibration__dataset="c4"),
        write_run(tmp_path / "b", 20, calibration__dataset="alpaca"),
    )
    assert "removed the same" in told(runs)["20 % to remove"]


def test_the_largest_ratio_within_a_loss(tmp_path: Path) -> None:
    dense = 0.597
    runs = read(
        write_run(tmp_path / "a", 10, accuracy=dense - 0.015),
        write_run(tmp_path / "b", 20, accuracy=dense - 0.04),
        write_run(tmp_path / "c", 25, accuracy=dense - 0.2),
    )
    found = told(runs)
    assert "no finished run" in found["1 point of accuracy to lose at most"]
    assert "10.1 % removed removes most" in found["2 points of accuracy to lose at most"]
    assert "20.2 % removed removes most" in found["5 points of accuracy to lose at most"]


def test_without_accuracy_perplexity_decides(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", 10, ppl=15.0), write_run(tmp_path / "b", 20, ppl=16.5)]
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        for record in summary["measured"].values():
            record["tasks"] = []
        (folder / "summary.json").write_text(json.dumps(summary))
    runs = read(*folders)
    assert "14.20 → 15.00" in told(runs)["perplexity 10 % higher at most"]
    assert {chart.y.title for chart in trade_offs(runs)} == {"perplexity"}


def test_other_protocols_are_not_compared(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 20, accuracy=0.5),
        write_run(tmp_path / "b", 20, (100, 0, 0), evaluated=["piqa"]),
        write_run(tmp_path / "c", 20, (0, 100, 0), accuracy=0.4),
    )
    assert any("not measured alike" in note for note in notes(runs))
    assert "100:0:0" not in told(runs)["20 % to remove"]


def test_runs_that_were_evaluated_in_several_ways_are_compared_as_most_were(
    tmp_path: Path,
) -> None:
    runs = [
        write_run(tmp_path / "a", 20, evaluated=["piqa"], accuracy=0.5),
        write_run(tmp_path / "b", 20, (100, 0, 0), evaluated=["piqa"], accuracy=0.4),
    ]
    whole = json.loads((runs[0] / "evaluation.json").read_text())
    first = runs[0] / "measured" / "evaluate" / "whole" / "evaluation.json"
    first.parent.mkdir(parents=True)
    put(first, whole)
    fewer = {side: record | {"tasks": [record["tasks"][0] | {"items": 20, "acc_norm": 0.9}]}
             for side, record in whole.items()}  # fmt: skip
    last = runs[0] / "measured" / "evaluate" / "fewer" / "evaluation.json"
    last.parent.mkdir()
    put(last, fewer)
    put(runs[0] / "evaluation.json", fewer)
    comparison = Comparison("x", tuple(read(*runs)))
    shown = [value.protocol for run in comparison.runs if (value := run.accuracy())]
    assert shown == ["piqa, 1,838 items"] * 2
    assert "44:52:4 keeps most accuracy: 50.0" in told(comparison.runs)["20 % to remove"]
    assert read(runs[0])[0].accuracy().value == pytest.approx(90), "the last one, if nothing else"


def test_a_text_that_some_runs_measured_has_a_column(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 20, on=WIKITEXT2, ppl=9.4),
        write_run(tmp_path / "b", 20, (100, 0, 0), ppl=15.0),
        write_run(tmp_path / "c", 20, (0, 100, 0), ppl=16.0),
    )
    columns = next(csv.reader(io.StringIO(to_csv(runs))))
    assert "perplexity (WikiText-2 test, 341,000 tokens, windows of 2,048)" in columns
    console = screen(width=220)
    with console.capture() as captured:
        console.print(*runs_tables("x", Comparison("x", tuple(runs)).runs, 220))
    text = captured.get()
    assert "Held-out perplexity: heldout.txt, first 8,192 tokens, windows of 512." in text
    assert "WikiText-2 test," in text


def test_a_dense_model_is_a_row_unless_another_says_as_much(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, 20) for name in "abc"]
    for folder in folders[1:]:
        summary = json.loads((folder / "summary.json").read_text())
        summary["measured"]["dense"] |= {"tasks": [], "texts": [], "ppl": None}
        put(folder / "summary.json", summary)

    def dense() -> list[str]:
        return [row.cells[2].text for row in rows(read(*folders)) if row.kind == "dense"]

    (whole,) = dense()
    summary["measured"]["dense"]["memory"]["peak"] *= 2
    put(folder / "summary.json", summary)
    assert dense() == [whole, NOTHING]


def test_published_points_are_beside_ours_where_the_same_was_measured(tmp_path: Path) -> None:
    tasks = sorted(FIVE_TASKS)
    run = write_run(tmp_path / "a", 22, evaluated=tasks, ppl=9.4, on=WIKITEXT2, **LLAMA)
    runs = read(run)
    published = published_for(runs)
    papers = [point for point in published.points if point.source.name == PAPER]
    assert {p.method for p in papers} == {"dense", "MultiPruner", "BlockPruner"}
    cells = next(r.cells for r in published_rows(runs, published) if r.cells[2] == "22.0 %")
    assert cells[:5] == ("Llama-2-7B", "MultiPruner 44:52:4", "22.0 %", "9.33", "62.8 %")
    assert cells[6] == "9.40"
    accuracy = charts(runs)[0]
    assert [line.name for line in accuracy.lines if line.name.startswith("published")] == [
        "published: MultiPruner", "published: BlockPruner",
    ]  # fmt: skip


def test_published_points_under_another_protocol_are_only_listed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 22, evaluated=["piqa"], model__path="/m/Llama-2-7b-hf")
    comparison = Comparison("x", tuple(read(run)))
    names = {line.name for chart in charts(comparison.runs) for line in chart.lines}
    assert names == {"44:52:4"}
    assert {row.cells[6:8] for row in published_rows(comparison.runs, comparison.published)} == {
        ("–", "–")  # noqa: RUF001
    }
    assert "Runs of ours measured something else" in comparison_page(comparison)


def test_models_without_published_results_have_no_such_section(large: Comparison) -> None:
    assert not large.published.points
    assert "Published results" not in comparison_page(large)


def test_the_csv_has_plain_numbers_and_a_row_per_run(large: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(large.runs))))
    assert len(rows) == 21
    first, failed = rows[0], next(row for row in rows if row["state"] == "failed")
    assert float(first["accuracy_percent"]) == pytest.approx(59.0)
    assert float(first["prefill_ms"]) < float(first["dense_prefill_ms"])
    assert float(first["prefill_speed_percent_of_dense"]) > 100
    assert json.loads(first["prune.distribution"]) == [44.0, 52.0, 4.0]
    assert failed["error"] == "CUDA out of memory: tried to allocate 2 GiB"
    assert failed["accuracy_percent"] == ""


def test_the_terminal_has_every_run(large: Comparison) -> None:
    console = screen(width=220)
    with console.capture() as captured:
        console.print(*runs_tables(large.name, large.runs, 220))
    text = captured.get()
    assert text.count("44:52:4") == 5
    assert "0:100:0" in text
    assert "failed: CUDA out of memory: tried to allocate 2 GiB" in text
    assert "missing: its folder is not there" in text


def test_a_narrow_terminal_gets_tables_below_one_another(tmp_path: Path) -> None:
    runs = read(
        write_run(tmp_path / "a", 20, on=WIKITEXT2, ppl=9.4),
        write_run(tmp_path / "b", 20, (100, 0, 0), ppl=15.0),
    )
    console = screen(width=80)
    with console.capture() as captured:
        for table in runs_tables("x", runs, console.width):
            console.print(table)
    text = captured.get()
    assert text.count("Setting") > 1
    assert text.count("100:0:0") == text.count("Setting")
    assert "…" not in text
    for heading in ("Accuracy", "Perplexity", "Prefill (ms)", "Decode (ms)", "Peak (MB)"):
        assert heading in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_comes_from_runs_is_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 10, device=ATTACK, calibration__dataset=ATTACK)
    failed = write_run(tmp_path / "b", 20, status="failed", error=ATTACK)
    text = comparison_page(Comparison(ATTACK, tuple(read(run, failed))))
    tags = Tags(text).names()
    assert tags.count("script") == 1
    assert "img" not in tags
    assert "http" not in text.replace("http-equiv", "")


def test_a_moved_sweep_finds_its_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "old/runs/a", 10)
    write_sweep(tmp_path / "old/sweeps/s", [run])
    (tmp_path / "old").rename(tmp_path / "new")
    comparison, _ = gather([str(tmp_path / "new/sweeps/s")], None)
    assert [run.state for run in comparison.runs] == ["done"]


def test_the_files_are_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(
        tmp_path / "outputs/sweeps/s", [write_run(tmp_path / "outputs/runs/a", 10),
                                        write_run(tmp_path / "outputs/runs/b", 20)]
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "s"]) == 0
    names = {f"comparison.{end}" for end in ("html", "png", "svg", "pdf", "csv")}
    assert {p.name for p in Path("outputs/sweeps/s").iterdir()} == {*names, "sweep.json"}
    assert "see: outputs/sweeps/s/comparison.html" in capsys.readouterr().out
    assert cli.main(["compare", "a", "b"]) == 0
    assert {p.name for p in Path("outputs/comparison").iterdir()} == names
    assert cli.main(["compare", "a", "--out", "here"]) == 0
    assert {p.name for p in Path("here").iterdir()} == names


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nothing", "nothing: there is none here; there are sweeps: s; runs: a, failed"),
        ("folder", "folder: is a folder, but of no run or sweep; there are sweeps: s"),
        ("failed", "no run is finished, so there is nothing to compare yet"),
        ("s", "out of memory"),
    ],
)
def test_bad_targets_are_told_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    says: str,
) -> None:
    write_run(tmp_path / "outputs/runs/a", 10)
    failed = write_run(tmp_path / "outputs/runs/failed", 10, status="failed", error="out of memory")
    write_sweep(tmp_path / "outputs/sweeps/s", [failed])
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", target]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("comparison.*"))


@pytest.mark.filterwarnings("error")
def test_pictures_of_many_and_of_one(tmp_path: Path, large: Comparison) -> None:
    one = Comparison("$x_{$", tuple(read(write_run(tmp_path / "one", 10))))
    for comparison in (large, one):
        paths = write_comparison(comparison, tmp_path / "out")
        assert all(path.stat().st_size > 500 for path in paths)


def test_a_run_that_measured_nothing_is_still_a_row(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 10)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["measured"], summary["shape"]
    (folder / "summary.json").write_text(json.dumps(summary))
    comparison = Comparison("x", tuple(read(folder)))
    assert figures_of_comparison(comparison) == comparison.answers == []
    assert "nothing says which is best" in comparison.notes[0]
    write_comparison(comparison, tmp_path / "out")


def test_comparing_needs_no_torch() -> None:
    code = (
        "import sys, pipeline.commands.cli, pipeline.commands.compare,"
        "pipeline.report.output;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
