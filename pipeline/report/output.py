"""Reports and comparisons as files: a page, and the same picture in every format."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pipeline import __version__, files
from pipeline.files import key_of
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.table import to_csv
from pipeline.report.data import RunReport
from pipeline.report.drawing.shapes import Drawing
from pipeline.report.pages.comparison import comparison_page, search_page
from pipeline.report.pages.run import run_page
from pipeline.report.pictures.comparison import comparison_picture, search_picture
from pipeline.report.pictures.run import run_picture
from pipeline.report.pictures.sheet import FORMATS

REPORT, COMPARISON, STUDY = "report", "comparison", "study"
"""Names of files, without their ends."""


def write_report(
    report: RunReport, folder: Path, formats: Collection[str] = tuple(FORMATS)
) -> list[Path]:
    """Write a run's page and its picture in ``formats``; where they are, the page first.

    Drawing takes seconds: what was drawn of the same report is left as it is.
    """
    paths = [folder / f"{REPORT}.{end}" for end in ("html", *formats)]
    drawn_of = f'<meta name="drawn-of" content="{_digest(report)}">'
    page = paths[0]
    if all(path.exists() for path in paths) and drawn_of in page.read_text("utf-8", "replace"):
        return paths
    text = run_page(report).replace("<head>\n", f"<head>\n{drawn_of}\n", 1)
    return _write([(page.name, text), *_pictures(REPORT, run_picture(report), formats)], folder)


def _digest(report: RunReport) -> str:
    """What a report says, and the version that draws it."""
    return key_of({"report": repr(report), "version": __version__})


def write_comparison(
    comparison: Comparison, folder: Path, formats: Collection[str] = tuple(FORMATS)
) -> list[Path]:
    """Write page, pictures in ``formats`` and CSV of runs into ``folder``; where they are."""
    contents: list[tuple[str, str | bytes]] = [
        (f"{COMPARISON}.html", comparison_page(comparison)),
        *_pictures(COMPARISON, comparison_picture(comparison), formats),
        (f"{COMPARISON}.csv", to_csv(comparison.runs)),
    ]
    for place, search in enumerate(comparison.searches):
        name = f"{STUDY}-{place + 1}" if place else STUDY
        contents.append((f"{name}.html", search_page(search)))
        contents += _pictures(name, search_picture(search), formats)
    return _write(contents, folder)


def _pictures(
    name: str, drawing: Drawing, formats: Iterable[str]
) -> Iterator[tuple[str, str | bytes]]:
    for end in formats:
        yield f"{name}.{end}", FORMATS[end](drawing)


def _write(contents: list[tuple[str, str | bytes]], folder: Path) -> list[Path]:
    """Nothing is written before all is made."""
    for name, content in contents:
        files.replace(folder / name, content)
    return [folder / name for name, _ in contents]
