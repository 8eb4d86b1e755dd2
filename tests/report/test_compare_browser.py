"""The comparison's page in a real browser, from a file, without a network."""

import re
from pathlib import Path

import pytest
from support_browser import CHROMIUM, dom_of, noted
from support_compare import large_sweep, write_run
from support_report import ATTACK, Tags

from pipeline.jobs.comparing import gather
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.records import read_run
from pipeline.report.pages import html
from pipeline.report.pages.comparison import comparison_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

USE = """
const root = document.documentElement;
const seen = (name, value) => { root.dataset[name] = value; };
seen("wide", root.scrollWidth > root.clientWidth ? "overflows" : "fits");
const column = (index) => [...document.querySelectorAll(".runs tbody tr")]
  .map((row) => row.cells[index].dataset.sort).join("|");
const heading = (index) => document.querySelectorAll(".runs th")[index];
const button = (index) => heading(index).querySelector("button");
button(1).focus();
seen("focus", document.activeElement === button(1) ? "heading" : "elsewhere");
button(1).click();
seen("sorted", column(1));
button(1).click();
seen("reversed", column(1));
seen("told", heading(1).getAttribute("aria-sort"));
button(0).click();
seen("named", column(0));
const shown = () => [...document.querySelectorAll("figure:not([hidden]) b")]
  .filter((name) => name.closest("figure").querySelector(".over-removed, .over-latency")).length;
seen("relative", shown());
document.querySelector("[data-scale=absolute]").click();
seen("absolute", shown());
const plot = [...document.querySelectorAll(".scale-absolute .over-removed svg")][0];
seen("axis", plot.querySelectorAll("text")[0].textContent);
const area = document.querySelector(".over-removed svg");
const box = area.getBoundingClientRect();
const at = { clientX: box.left + 10, clientY: box.top + 30, bubbles: true };
area.dispatchEvent(new PointerEvent("pointermove", at));
seen("tip", tip.textContent);
"""


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are, once drawn, used as a person would, and note what happens."""
    plain = html.resource
    monkeypatch.setattr(
        html, "resource", lambda name: plain(name) + (USE if name == html.SCRIPT else "")
    )


@pytest.fixture
def large(tmp_path: Path) -> Comparison:
    return gather([str(large_sweep(tmp_path / "large"))], None)[0]


@pytest.mark.parametrize("width_px", [1440, 800, 500])
@pytest.mark.usefixtures("used")
def test_nothing_overflows(tmp_path: Path, large: Comparison, width_px: int) -> None:
    assert noted(dom_of(tmp_path, comparison_page(large), width_px), "wide") == "fits"


@pytest.mark.usefixtures("used")
def test_sorting_scales_and_pointing(tmp_path: Path, large: Comparison) -> None:
    dom = dom_of(tmp_path, comparison_page(large))
    assert noted(dom, "focus") == "heading"
    ratios = [float(ratio) for ratio in noted(dom, "sorted").split("|") if ratio]
    assert ratios == sorted(ratios)
    assert len(ratios) == 21
    # A run that has no value goes last, whichever way the column is sorted.
    assert noted(dom, "sorted").endswith("|")
    assert noted(dom, "reversed").endswith("|")
    assert noted(dom, "told") == "descending"
    names = [name.strip() for name in noted(dom, "named").split("|")]
    assert names[0] == "dense tiny-1b"
    assert names[-1] == "gone"
    assert noted(dom, "relative") == noted(dom, "absolute") == "8"
    assert float(noted(dom, "axis").replace(",", "")) > 1000
    assert "dense tiny-1b" in noted(dom, "tip")


def test_every_run_is_drawn(tmp_path: Path, large: Comparison) -> None:
    dom = dom_of(tmp_path, comparison_page(large))
    assert len(re.findall(r'<div class="chart run-layers"[^>]*><svg', dom)) == 20
    assert dom.count('class="ring"') > 4
    assert len(re.findall(r'class="front"', dom)) == 2


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    runs = (
        read_run(write_run(tmp_path / "a", 10, device=ATTACK, calibration__dataset=ATTACK)),
        read_run(write_run(tmp_path / "b", 20, status="failed", error=ATTACK)),
    )
    tags = Tags(dom_of(tmp_path, comparison_page(Comparison(ATTACK, runs)))).names()
    assert "img" not in tags
    assert tags.count("script") == 1


def test_one_run_that_measured_little(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", 10))
    dom_of(tmp_path, comparison_page(Comparison("one", (run,))))
