import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support_report import ATTACK, bare, broken, full, walk

from pipeline.report.data import RunReport
from pipeline.report.drawing.svg import svg_file
from pipeline.report.output import write_report
from pipeline.report.pictures.run import run_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAMES = ["report.html", "report.pdf", "report.png", "report.svg"]


def size_px(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == SIGNATURE
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def written(report: RunReport, folder: Path) -> Path:
    """The PNG of a report that is written whole."""
    write_report(report, folder)
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    return folder / "report.png"


def large() -> RunReport:
    return walk(80, {"blocks": 30, "mlp_channels": 60, "heads": 10})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("make", "height_px"), [(full, 1000), (broken, 1000), (bare, 700), (large, 1000)]
)
def test_the_picture_has_its_size_and_no_panel_warns(
    tmp_path: Path, make: Callable[[], RunReport], height_px: int
) -> None:
    assert size_px(written(make(), tmp_path)) == (1600, height_px)


def test_the_map_alone_is_a_picture(tmp_path: Path) -> None:
    assert size_px(written(replace(bare(), steps=()), tmp_path)) == (1600, 370)


def test_names_are_not_read_as_mathematics(tmp_path: Path) -> None:
    report = replace(full(), name="a$\\frac$b" * 40, model_name="$x_{$" * 40, device="$")
    assert size_px(written(report, tmp_path)) == (1600, 1000)


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        write_report(replace(full(), state=None), tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [full, bare, broken, large])
def test_the_svg_shows_what_the_page_shows_and_needs_no_page(
    make: Callable[[], RunReport],
) -> None:
    text = svg_file(run_picture(make()))
    root = ElementTree.fromstring(text)
    assert root.get("width") == "1280"
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert "data-" not in text
    assert "hidden" not in text
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"What is left of every layer", "attention", "MLP", "parameters removed (%)"} <= {*words}


def test_names_are_text_in_the_svg() -> None:
    text = svg_file(run_picture(replace(full(), name=f"\x00\x1b{ATTACK}", model_name=ATTACK)))
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
    assert names == {"svg", "g", "path", "circle", "text"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a full report is."""
    folder = tmp_path_factory.mktemp("report")
    write_report(full(), folder)
    return folder


def test_the_pdf_is_one_page_with_text_that_can_be_searched(folder: Path) -> None:
    content = (folder / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", content)) == 1
    assert b"/FontFile2" in content


def test_the_same_report_is_the_same_file(tmp_path: Path, folder: Path) -> None:
    write_report(full(), tmp_path)
    for name in NAMES:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_drawing_libraries_are_not_loaded_before_they_are_used() -> None:
    code = (
        "import sys, pipeline.report.output, pipeline.report.table;"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'jinja2', 'numpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
