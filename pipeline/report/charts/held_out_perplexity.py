"""Perplexity on text that decided nothing."""

from collections.abc import Iterator

from pipeline.report.charts.base import Chart, Source
from pipeline.report.charts.comparison import over_ratio
from pipeline.report.charts.run import Curve, dense_level, over_removed, probed, reading_of
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.quantities import PERPLEXITY
from pipeline.report.data import RunReport


def of_run(report: RunReport) -> Iterator[Chart]:
    """After every step that was probed."""
    curve = Curve(probed(report, lambda record: reading_of(record.ppl)))
    yield from over_removed(
        report, "Held-out perplexity", "perplexity", [curve], dense_level(curve), order=2,
        note=report.probed_text,
    )  # fmt: skip


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """At the end of every run."""
    yield from over_ratio(PERPLEXITY, comparison, order=2)


CHART = Source(of_run, of_comparison)
