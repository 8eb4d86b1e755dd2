"""What the model takes in memory at the end of every run."""

from collections.abc import Iterator

from pipeline.report.charts.base import Chart, Source
from pipeline.report.charts.comparison import over_ratio
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.quantities import CACHE, PEAK


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """Highest use, and the KV cache of one token."""
    yield from over_ratio(PEAK, comparison, order=5)
    yield from over_ratio(CACHE, comparison, order=6)


CHART = Source(of_comparison=of_comparison)
