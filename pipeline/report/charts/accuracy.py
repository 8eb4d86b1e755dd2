"""Mean accuracy over the tasks."""

from collections.abc import Iterator

from pipeline.measure.record import Record
from pipeline.report.charts.base import Chart, Source
from pipeline.report.charts.comparison import over_ratio
from pipeline.report.charts.run import Curve, Reading, dense_level, over_removed, probed
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.quantities import ACCURACY
from pipeline.report.data import RunReport, mean_accuracy
from pipeline.report.dense_and_pruned import accuracy_text


def of_run(report: RunReport) -> Iterator[Chart]:
    """After every step that was probed."""
    curve = Curve(probed(report, _reading))
    yield from over_removed(
        report, "Accuracy", "percent, ± standard error", [curve], dense_level(curve), order=3,
        note=report.probed_tasks,
    )  # fmt: skip


def _reading(record: Record) -> Reading | None:
    accuracy = mean_accuracy(record.tasks)
    if accuracy is None:
        return None
    value, error = accuracy[0] * 100, None if accuracy[1] is None else accuracy[1] * 100
    interval = None if error is None else (value - error, value + error)
    return Reading(None, 0.0, value, accuracy_text(accuracy), interval)


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """At the end of every run."""
    yield from over_ratio(ACCURACY, comparison, order=1)


CHART = Source(of_run, of_comparison)
