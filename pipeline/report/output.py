"""Reports and comparisons as files: a page, and the same picture in every format."""

from collections.abc import Iterator
from pathlib import Path

from pipeline import files
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.table import to_csv
from pipeline.report.data import RunReport
from pipeline.report.drawing.shapes import Drawing
from pipeline.report.pages.comparison import comparison_page
from pipeline.report.pages.run import run_page
from pipeline.report.pictures.comparison import comparison_picture
from pipeline.report.pictures.run import run_picture
from pipeline.report.pictures.sheet import FORMATS

REPORT, COMPARISON = "report", "comparison"
"""Names of files, without their ends."""


def write_report(report: RunReport, folder: Path) -> list[Path]:
    """Write a run's page and pictures into ``folder``; where they are, the page first."""
    contents = [(f"{REPORT}.html", run_page(report)), *_pictures(REPORT, run_picture(report))]
    return _write(contents, folder)


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write page, pictures and CSV of several runs into ``folder``; where they are."""
    contents = [
        (f"{COMPARISON}.html", comparison_page(comparison)),
        *_pictures(COMPARISON, comparison_picture(comparison)),
        (f"{COMPARISON}.csv", to_csv(comparison.runs)),
    ]
    return _write(contents, folder)


def _pictures(name: str, drawing: Drawing) -> Iterator[tuple[str, str | bytes]]:
    for end, write in FORMATS.items():
        yield f"{name}.{end}", write(drawing)


def _write(contents: list[tuple[str, str | bytes]], folder: Path) -> list[Path]:
    """Nothing is written before all is made."""
    for name, content in contents:
        files.replace(folder / name, content)
    return [folder / name for name, _ in contents]
