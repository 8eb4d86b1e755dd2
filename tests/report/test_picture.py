import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support_report import bare, broken, full, walk

from pipeline.report.data import RunReport
from pipeline.report.picture import write_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def size_px(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == SIGNATURE
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def large() -> RunReport:
    return walk(80, {"blocks": 30, "mlp_channels": 60, "heads": 10})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("make", "height_px"), [(full, 1000), (broken, 1000), (bare, 700), (large, 1000)]
)
def test_the_picture_has_its_size_and_no_panel_warns(
    tmp_path: Path, make: Callable[[], RunReport], height_px: int
) -> None:
    path = tmp_path / "report.png"
    write_picture(make(), path)
    assert size_px(path) == (1600, height_px)
    assert list(tmp_path.iterdir()) == [path]


def test_the_map_alone_is_a_picture(tmp_path: Path) -> None:
    write_picture(replace(bare(), steps=()), tmp_path / "report.png")
    assert size_px(tmp_path / "report.png") == (1600, 370)


def test_names_are_not_read_as_mathematics(tmp_path: Path) -> None:
    report = replace(full(), name="a$\\frac$b" * 40, model_name="$x_{$" * 40, device="$")
    write_picture(report, tmp_path / "report.png")
    assert size_px(tmp_path / "report.png") == (1600, 1000)


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        write_picture(replace(full(), state=None), tmp_path / "report.png")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_drawing_libraries_are_not_loaded_before_they_are_used() -> None:
    code = (
        "import sys, pipeline.report.page, pipeline.report.picture, pipeline.report.table;"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'jinja2', 'numpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
