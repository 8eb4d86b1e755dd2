from dataclasses import replace

import pytest
from support_report import bare, broken, exploding, full

from pipeline.measure.record import Timing
from pipeline.report.data import ReportStep, Sensitivity, UnitLoss
from pipeline.report.series import bands, cells, charts, is_taken, outlier_limit, sensitivity_note
from pipeline.report.wording import TIMES


def test_bands_are_the_dimensions_in_their_order_without_gaps() -> None:
    found = bands(full())
    assert [band.dimension for band in found] == ["blocks", "mlp_channels", "heads"]
    assert [(band.first_step, band.last_step) for band in found] == [(0, 4), (5, 24), (25, 29)]
    assert found[0].start_percent == 0
    assert found[1].start_percent == found[0].end_percent
    assert found[2].end_percent == pytest.approx(full().state.ratio_percent)


def test_a_full_run_has_four_charts_and_a_bare_one_only_importance() -> None:
    titles = [chart.title for chart in charts(full())]
    assert titles == ["Calibration perplexity", "Held-out perplexity", "Accuracy", "Latency"]
    assert [chart.title for chart in charts(bare())] == ["Calibration perplexity"]
    assert charts(replace(bare(), steps=())) == []


def test_no_line_joins_perplexities_on_different_windows() -> None:
    importance = charts(full())[0]
    # MLP channels and heads have the same windows, blocks have others.
    assert [len(line.points) for line in importance.lines] == [6, 25]
    assert [level.value for level in importance.baselines] == [9.412, 9.873, 9.873]
    assert [len(line.points) for line in charts(bare())[0].lines] == [5, 20, 5]


def test_latency_is_relative_to_the_dense_model_where_that_was_measured() -> None:
    prefill = charts(full())[3].lines[0]
    assert prefill.points[0].value == 100
    assert prefill.points[1].value == pytest.approx(93.2, abs=0.1)
    latency = charts(replace(full(), dense=None))[-1]
    assert latency.axis == "ms"
    assert latency.lines[0].points[0].value == pytest.approx(167.6, abs=0.1)


def test_a_dense_latency_of_zero_is_not_divided_by() -> None:
    report = full()
    assert report.dense
    assert report.dense.latency
    still = replace(report.dense.latency, decode=Timing(0.0, 0.0, 1))
    names = [
        line.name
        for line in charts(replace(report, dense=replace(report.dense, latency=still)))[-1].lines
    ]
    assert names == ["prefill"]


def test_only_finite_values_are_drawn() -> None:
    for chart in charts(broken()):
        values = [point.value for line in chart.lines for point in line.points]
        assert all(abs(value) < 1e9 for value in values)
    assert [len(chart.lines) for chart in charts(broken())] == [3, 1, 1, 2]


def test_values_far_apart_get_a_logarithmic_axis() -> None:
    assert [chart.logarithmic for chart in charts(exploding())] == [True, False, False, False]


def test_cells_tell_what_is_left_and_which_step_took_it() -> None:
    report = full()
    found = {(cell.kind, cell.layer): cell for cell in cells(report)}
    assert len(found) == 20
    assert report.state.removed_attn == (6, 5, 7, 4)
    assert [found["attn", layer].step for layer in (6, 5, 7, 4)] == [0, 1, 3, 4]
    assert found["attn", 6].kept_share == 0
    assert found["mlp", 5].kept_share == pytest.approx(1 / 3)
    assert found["attn", 0].kept_share == 1
    assert found["attn", 0].step is None


def test_cells_need_no_steps() -> None:
    found = cells(replace(bare(), steps=()))
    assert sum(cell.removed for cell in found) == 5


def test_an_outlier_does_not_flatten_the_others() -> None:
    losses = tuple(UnitLoss("mlp", i, 0, 10 + 0.1 * i) for i in range(9))
    assert outlier_limit(Sensitivity(9.9, losses)) is None
    far = (*losses, UnitLoss("mlp", 9, 0, 5e4))
    limit = outlier_limit(Sensitivity(9.9, far))
    assert limit is not None
    assert 10.8 < limit < 20
    assert sensitivity_note(Sensitivity(9.9, far), limit) == "▲ off the scale: MLP 9: 50,000"


def test_refused_units_are_noted() -> None:
    losses = (UnitLoss("attn", 0, 0, None), UnitLoss("attn", 1, 0, 10.0))
    assert sensitivity_note(Sensitivity(9.0, losses), None) == f"{TIMES} no number"
    assert outlier_limit(Sensitivity(None, losses[:1])) is None


def test_what_the_run_took_is_known() -> None:
    report = full()
    assert is_taken(report, UnitLoss("attn", 6, 0, 1.0))
    assert not is_taken(report, UnitLoss("mlp", 6, 0, 1.0))
    assert is_taken(report, UnitLoss("mlp_width", 6, 1408, 1.0))
    assert not is_taken(report, UnitLoss("attn_width", 0, 384, 1.0))


def test_steps_and_sensitivity_are_read_as_they_are_on_disk() -> None:
    row = {
        "step": 3,
        "dimension": "mlp_channels",
        "unit": "mlp_width",
        "layer": 2,
        "width_after": 1408,
        "importance": 11.5,
        "ratio_percent": 4.25,
        "params": 1000,
        "candidates": [],
    }
    step = ReportStep.from_json(row)
    assert step == ReportStep(3, "mlp_channels", "mlp_width", 2, 1408, 11.5, 4.25, 1000)
    candidate = {"unit": "attn", "layer": 1, "width_after": 0, "ppl": None}
    read = Sensitivity.from_json({"dense_ppl": 9.5, "candidates": [candidate]})
    assert read == Sensitivity(9.5, (UnitLoss("attn", 1, 0, None),))
