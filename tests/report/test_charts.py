import textwrap
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support_compare import large_sweep
from support_report import bare, broken, exploding, full, with_score

from pipeline.jobs.comparing import gather
from pipeline.measure.record import Timing
from pipeline.pruning.units import ATTN, ATTN_WIDTH, LAYER, MLP, MLP_WIDTH, Candidate
from pipeline.report import charts, colours
from pipeline.report.charts import figures_of_comparison, figures_of_run
from pipeline.report.charts.base import Chart, LayerMap
from pipeline.report.charts.run import stretches
from pipeline.report.charts.sections import ALONG_RUN
from pipeline.report.charts.sensitivity import is_taken, note, outlier_limit
from pipeline.report.data import RunReport, Sensitivity, UnitLoss
from pipeline.report.output import write_comparison, write_report
from pipeline.report.wording import TIMES, removal


def along(report: RunReport) -> list[Chart]:
    """The charts over the removed share."""
    figures = figures_of_run(report)
    return [f for f in figures if isinstance(f, Chart) and f.section == ALONG_RUN]


def layer_map(report: RunReport) -> LayerMap:
    return next(f for f in figures_of_run(report) if isinstance(f, LayerMap))


def test_bands_are_the_dimensions_in_their_order_without_gaps() -> None:
    found = stretches(full())
    assert [name for name, _, _ in found] == ["blocks", "mlp_channels", "heads"]
    assert found[0][1] == 0
    assert found[1][1] == found[0][2]
    assert found[2][2] == pytest.approx(full().state.ratio_percent)
    bands = along(full())[0].bands
    assert [(band.start, band.end) for band in bands] == [(s, e) for _, s, e in found]
    assert [band.colour for band in bands] == [colours.BLUE, colours.ORANGE, colours.GREEN]
    tips = [point.tip for line in along(full())[0].lines for point in line.points]
    assert "step 4: " in tips[5]
    assert "step 5: MLP of layer" in tips[6]


def test_a_full_run_has_four_charts_and_a_bare_one_only_importance() -> None:
    titles = [chart.title for chart in along(full())]
    assert titles == ["Calibration perplexity", "Held-out perplexity", "Accuracy", "Latency"]
    assert [chart.title for chart in along(bare())] == ["Calibration perplexity"]
    assert along(replace(bare(), steps=())) == []


def test_no_line_joins_perplexities_on_different_windows() -> None:
    importance = along(full())[0]
    # MLP channels and heads have the same windows, blocks have others.
    assert [len(line.points) for line in importance.lines] == [6, 25]
    assert [level.value for level in importance.levels] == [9.412, 9.873, 9.873]
    assert [len(line.points) for line in along(bare())[0].lines] == [5, 20, 5]


def test_latency_is_relative_to_the_dense_model_where_that_was_measured() -> None:
    prefill = along(full())[3].lines[0]
    assert prefill.points[0].y == 100
    assert prefill.points[1].y == pytest.approx(93.2, abs=0.1)
    latency = along(replace(full(), dense=None))[-1]
    assert latency.y.title == "ms"
    assert latency.lines[0].points[0].y == pytest.approx(167.6, abs=0.1)


def test_a_dense_latency_of_zero_is_not_divided_by() -> None:
    report = full()
    assert report.dense
    assert report.dense.latency
    still = replace(report.dense.latency, decode=Timing(0.0, 0.0, 1))
    names = [
        line.name
        for line in along(replace(report, dense=replace(report.dense, latencies=(still,))))[
            -1
        ].lines
    ]
    assert names == ["prefill"]


def test_only_finite_values_are_drawn() -> None:
    for chart in along(broken()):
        values = [point.y for line in chart.lines for point in line.points]
        assert all(abs(value) < 1e9 for value in values)
    assert [len(chart.lines) for chart in along(broken())] == [3, 1, 1, 2]


def test_values_far_apart_get_a_logarithmic_axis() -> None:
    assert [chart.y.logarithmic for chart in along(exploding())] == [True, False, False, False]


def test_cells_tell_what_is_left_and_which_step_took_it() -> None:
    report = full()
    drawn = layer_map(report)
    assert list(drawn.rows) == ["attention", "MLP"]
    ends = {(cell.row, cell.column): cell.states[-1] for cell in drawn.cells}
    assert len(ends) == 20
    assert report.state.removed_attn == (6, 5, 7, 4)
    assert [ends[0, layer].text for layer in (6, 5, 7, 4)] == ["0", "1", "3", "4"]
    assert ends[0, 6].is_gone
    assert ends[0, 6].tip == "layer 6, attention: gone\nwent at step 0"
    assert ends[1, 5].kept_share == pytest.approx(1 / 3)
    assert ends[0, 0].kept_share == 1
    assert ends[0, 0].tip == "layer 0, attention: whole"


def test_every_state_of_a_cell_follows_the_one_before() -> None:
    report = full()
    drawn = layer_map(report)
    assert sum(len(cell.states) - 1 for cell in drawn.cells) == len(report.steps)
    for cell in drawn.cells:
        assert cell.states[0].start == 0
        assert cell.states[-1].end is None
        shares = [state.kept_share for state in cell.states]
        assert shares == sorted(shares, reverse=True)
        assert [state.end for state in cell.states[:-1]] == [s.start for s in cell.states[1:]]


def test_cells_need_no_steps() -> None:
    drawn = layer_map(replace(bare(), steps=()))
    assert sum(cell.states[-1].is_gone for cell in drawn.cells) == 5


def test_an_outlier_does_not_flatten_the_others() -> None:
    losses = tuple(UnitLoss(Candidate(MLP, i, 0), 10 + 0.1 * i) for i in range(9))
    assert outlier_limit(Sensitivity(9.9, losses)) is None
    far = (*losses, UnitLoss(Candidate(MLP, 9, 0), 5e4))
    limit = outlier_limit(Sensitivity(9.9, far))
    assert limit is not None
    assert 10.8 < limit < 20
    assert note(Sensitivity(9.9, far), limit) == "▲ off the scale: MLP 9: 50,000"


def test_refused_units_are_noted() -> None:
    losses = (UnitLoss(Candidate(ATTN, 0, 0), None), UnitLoss(Candidate(ATTN, 1, 0), 10.0))
    assert note(Sensitivity(9.0, losses), None) == f"{TIMES} no number"
    assert outlier_limit(Sensitivity(None, losses[:1])) is None


def test_what_the_run_took_is_known() -> None:
    report = full()
    assert is_taken(report, Candidate(ATTN, 6, 0))
    assert not is_taken(report, Candidate(MLP, 6, 0))
    assert is_taken(report, Candidate(MLP_WIDTH, 6, 1408))
    assert not is_taken(report, Candidate(ATTN_WIDTH, 0, 384))


def test_sensitivity_is_read_as_it_is_on_disk() -> None:
    candidate = {"unit": "attn", "layer": 1, "width_after": 0, "ppl": None}
    read = Sensitivity.from_json({"dense_ppl": 9.5, "candidates": [candidate]})
    assert read == Sensitivity(9.5, (UnitLoss(Candidate(ATTN, 1, 0), None),))


def of_another_method() -> RunReport:
    """A run that took whole layers, by a criterion and in a dimension that reports do not know."""
    report = full()
    steps = tuple(
        replace(
            with_score(step, step.step / 10),
            dimension="whole_layers",
            decision=replace(
                step.decision, chosen=Candidate(LAYER, step.step, 0), score=0.1,
                criterion="block_influence",
            ),
        )
        for step in report.steps[:3]
    )  # fmt: skip
    state = report.state.dense(report.shape)
    for step in steps:
        state = state.without(step.chosen)
    losses = tuple(UnitLoss(Candidate(LAYER, i, 0), 10.0 + i) for i in range(10))
    return replace(
        report, steps=steps, state=state, records={}, pruned=None,
        sensitivity={"whole_layers": Sensitivity(9.0, losses)},
    )  # fmt: skip


def test_methods_with_dimensions_and_criteria_of_their_own_are_drawn(tmp_path: Path) -> None:
    report = of_another_method()
    assert removal(report.steps[1].chosen, report.shape) == "layer 1"
    first = along(report)[0]
    assert first.title == "Block influence score"
    assert {key.label for key in first.keys} == {"Whole layers", "dense model"}
    assert first.bands[0].colour == colours.dimension("whole_layers")
    gone = [cell for cell in layer_map(report).cells if cell.states[-1].is_gone]
    assert [(cell.column, cell.row) for cell in gone] == [(i, r) for i in range(3) for r in (0, 1)]
    assert "without the layer" in figures_of_run(report)[-1].stems[0].tip  # type: ignore[union-attr]
    text = write_report(report, tmp_path)[0].read_text(encoding="utf-8")
    assert '<button type="button">Block influence score</button>' in text
    assert "Whole layers" in text


def test_scores_of_two_criteria_are_two_charts() -> None:
    report = full()
    channels = tuple(
        replace(
            with_score(step, -1.0),
            dimension="channels",
            decision=replace(step.decision, score=-1.0, criterion="activations"),
        )
        for step in report.steps[:4]
    )
    both = replace(report, steps=(*channels, *report.steps[4:]))
    drawn = {chart.title: chart for chart in along(both)}
    first, second = drawn["Activations score"], drawn["Calibration perplexity"]
    assert {point.y for line in first.lines for point in line.points} == {-1.0}
    assert all(point.y > 0 for line in second.lines for point in line.points)


WEIGHTS = '''
    """Weights in memory."""

    from pipeline.report.charts.base import Source
    from pipeline.report.charts.comparison import over_ratio
    from pipeline.report.charts.run import Curve, dense_level, over_removed, probed, reading_of
    from pipeline.report.compare.quantities import Quantity
    from pipeline.report.compare.records import Value


    def of_run(report):
        curve = Curve(probed(report, lambda r: reading_of(r.memory and r.memory.weights / 1e6)))
        yield from over_removed(report, "Weights", "MB", [curve], dense_level(curve))


    def _weights(run, pruned):
        memory = (run.pruned if pruned else run.dense).memory
        return Value(memory.weights / 1e6, None, "MB") if memory else None


    def of_comparison(comparison):
        yield from over_ratio(Quantity("Weights", "MB", "MB", _weights), comparison)


    CHART = Source(of_run, of_comparison)
'''


def test_a_new_chart_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "charts"
    folder.mkdir()
    (folder / "weights.py").write_text(textwrap.dedent(WEIGHTS), encoding="utf-8")
    monkeypatch.setattr(charts, "__path__", [*charts.__path__, str(folder)])
    comparison, _ = gather([str(large_sweep(tmp_path / "runs"))], None)
    written = [*write_report(full(), tmp_path / "a"), *write_comparison(comparison, tmp_path / "b")]
    assert [chart.title for chart in along(full())][-1] == "Weights"
    assert "Weights" in [figure.title for figure in figures_of_comparison(comparison)]
    for path in written:
        if path.suffix == ".html":
            assert "<b>Weights</b> MB" in path.read_text(encoding="utf-8")
        if path.suffix == ".svg":
            texts = [element.text for element in ElementTree.parse(path).iter()]
            assert "Weights" in texts
        if path.suffix == ".png":
            # one row of charts more than without it: what is in it is the SVG's drawing
            assert int.from_bytes(path.read_bytes()[20:24], "big") > 1000
