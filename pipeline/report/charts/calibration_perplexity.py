"""The score of what went in every step: perplexity on calibration text, or another criterion's."""

from collections.abc import Iterator
from itertools import groupby

from pipeline.report.charts.base import Chart, Level, Source
from pipeline.report.charts.run import Curve, Reading, over_removed, stretches
from pipeline.report.data import RunReport, finite
from pipeline.report.wording import score_name, score_text


def of_run(report: RunReport) -> Iterator[Chart]:
    """One chart for each criterion: their scores have nothing in common."""
    for criterion in dict.fromkeys(step.decision.criterion for step in report.steps):
        yield from _of_criterion(report, criterion)


def _of_criterion(report: RunReport, criterion: str) -> Iterator[Chart]:
    """One curve for each set of calibration windows: values on different text are not joined."""
    steps = [step for step in report.steps if step.decision.criterion == criterion]
    first = steps[0].dimension
    readings = [
        (dimension, Reading(step, ratio, value, score_text(value, criterion)))
        for dimension, step, ratio, value in (
            (first, None, 0.0, report.dense_importance_of(first)),
            *(
                (step.dimension, step.step, step.ratio_percent, finite(step.decision.score))
                for step in steps
            ),
        )
        if value is not None
    ]
    curves = [
        Curve(tuple(reading for _, reading in group))
        for _, group in groupby(readings, key=lambda pair: _windows(report, pair[0]))
    ]
    dimensions = {step.dimension for step in steps}
    levels = [
        Level(value, start, end)
        for dimension, start, end in stretches(report)
        if dimension in dimensions and (value := report.dense_importance_of(dimension)) is not None
    ]
    name = score_name(criterion)
    yield from over_removed(
        report, name[0].upper() + name[1:], name.split()[-1], curves, levels, order=1,
        note=report.calibration_text,
    )  # fmt: skip


def _windows(report: RunReport, dimension: str) -> float | str:
    """Stands for the calibration windows of a dimension.

    Equal perplexities of the dense model come from equal windows.
    """
    level = report.dense_importance_of(dimension)
    return dimension if level is None else level


CHART = Source(of_run=of_run)
