"""Which charts there are: every file of this folder hands out a ``CHART``, see `base.Source`.

A new chart is a new file. It appears on pages and in pictures, and nothing else has to be told.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from itertools import groupby

from pipeline.report.charts.base import Figure, Section, Source
from pipeline.report.compare.comparison import Comparison
from pipeline.report.data import RunReport

Sections = list[tuple[Section, list[Figure]]]
"""Figures by their section, both in order."""


def sources() -> list[Source]:
    """The ``CHART`` of every file."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [module.CHART for module in modules if hasattr(module, "CHART")]


def figures_of_run(report: RunReport) -> list[Figure]:
    """Everything that there is to draw of a run."""
    return _ordered(f for source in sources() if source.of_run for f in source.of_run(report))


def figures_of_comparison(comparison: Comparison) -> list[Figure]:
    """Everything that there is to draw of several runs."""
    return _ordered(
        figure
        for source in sources()
        if source.of_comparison
        for figure in source.of_comparison(comparison)
    )


def by_section(figures: Iterable[Figure]) -> Sections:
    """Ordered figures below their headings."""
    return [(section, list(group)) for section, group in groupby(figures, key=lambda f: f.section)]


def _ordered(figures: Iterable[Figure]) -> list[Figure]:
    return sorted(figures, key=lambda figure: (figure.section.order, figure.order))
