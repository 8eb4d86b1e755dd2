"""The page in a real browser, from a file, without a network."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support_browser import CHROMIUM, browse, dom_of, noted
from support_report import ATTACK, Tags, bare, broken, exploding, full, walk

from pipeline.report.data import RunReport
from pipeline.report.pages import html
from pipeline.report.pages.run import run_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

USE = """
const root = document.documentElement;
const seen = (name, value) => { root.dataset[name] = value; };
const point = (element, type, place) => {
  const box = element.getBoundingClientRect();
  const at = { clientX: box.left + box.width * place, clientY: box.top + 20, bubbles: true };
  element.dispatchEvent(new PointerEvent(type, at));
};
seen("wide", root.scrollWidth > root.clientWidth ? "overflows" : "fits");
const latency = document.querySelectorAll(".along-run svg")[3];
point(latency, "pointermove", 0.99);
seen("curveTip", tip.textContent);
point(latency, "pointerleave", 0.99);
seen("tipAfter", tip.hidden ? "hidden" : "shown");
point(document.querySelectorAll(".cell")[6 * 2], "pointermove", 0.5);
seen("cellTip", tip.textContent);
point(document.querySelector(".loss"), "pointermove", 0.5);
seen("lossTip", tip.textContent);
const scrub = document.getElementById("scrub");
scrub.value = 2;
scrub.dispatchEvent(new Event("input"));
const isShown = (element) => getComputedStyle(element).visibility === "visible";
seen("crossed", [...document.querySelectorAll(".cell .cross")].filter(isShown).length);
point(document.querySelectorAll(".cell")[6 * 2], "pointermove", 0.5);
seen("earlierTip", tip.textContent);
seen("state", document.getElementById("scrub-text").textContent);
seen("cursors", document.querySelectorAll(".cursor[visibility=visible]").length);
scrub.value = 0;
scrub.dispatchEvent(new Event("input"));
seen("whole", [...document.querySelectorAll(".cell .cross")].filter(isShown).length);
scrub.value = 30;
scrub.dispatchEvent(new Event("input"));
seen("crossedAtEnd", [...document.querySelectorAll(".cell .cross")].filter(isShown).length);
const buttons = document.querySelectorAll("#steps th button");
const column = (index) => [...document.querySelectorAll("#steps tbody tr")]
  .map((row) => row.cells[index].textContent).join("|");
buttons[6].click();
seen("sorted", column(0));
buttons[0].click();
buttons[0].click();
seen("reversed", column(0));
"""


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunReport], str]:
    """Renders a page that, once drawn, is used as a person would and notes what happens."""
    plain = html.resource
    monkeypatch.setattr(
        html, "resource", lambda name: plain(name) + (USE if name == html.SCRIPT else "")
    )
    return run_page


def test_all_charts_are_drawn(tmp_path: Path) -> None:
    dom = dom_of(tmp_path, run_page(full()))
    assert len(re.findall(r'<div class="chart[^>]*><svg', dom)) == 8
    assert dom.count('class="cell"') == 20
    assert dom.count('class="loss"') == 40
    assert dom.count('class="band"') == 12
    assert dom.count('class="line"') == 6
    assert dom.count('class="mark"') == 31 + 11 + 11 + 22


@pytest.mark.parametrize("make", [bare, broken, exploding])
def test_missing_and_failed_measurements_are_drawn_around(
    tmp_path: Path, make: Callable[[], RunReport]
) -> None:
    dom = dom_of(tmp_path, run_page(make()))
    assert dom.count('class="cell"') == 20


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    report = replace(full(), name=ATTACK, model_name=ATTACK, settings={ATTACK: ATTACK})
    dom = dom_of(tmp_path, run_page(report))
    tags = Tags(dom).names()
    assert "img" not in tags
    assert tags.count("script") == 1


def test_pointing_scrubbing_and_sorting(tmp_path: Path, used: Callable[[RunReport], str]) -> None:
    dom = dom_of(tmp_path, used(full()))
    assert noted(dom, "wide") == "fits"
    assert "prefill: 142.6 ms" in noted(dom, "curve-tip")
    assert "step 29" in noted(dom, "curve-tip")
    assert noted(dom, "tip-after") == "hidden"
    assert "layer 6, attention: gone\nwent at step 0" in noted(dom, "cell-tip")
    assert "layer 0, without the attention block\nperplexity 31.9" in noted(dom, "loss-tip")
    assert noted(dom, "crossed") == "2"
    assert (noted(dom, "whole"), noted(dom, "crossed-at-end")) == ("0", "5")
    assert noted(dom, "earlier-tip") == "layer 6, attention: gone\nwent at step 0"
    assert noted(dom, "state").startswith("after step 1: attention block of layer 5")
    assert noted(dom, "cursors") == "4"
    # Steps without a probe go last, whichever way the column is sorted.
    assert noted(dom, "sorted").startswith("2|5|8|11|14|17|20|23|26|29|")
    assert noted(dom, "reversed") == "|".join(str(step) for step in range(29, -1, -1))


def test_a_narrow_window_is_not_overflowed(
    tmp_path: Path, used: Callable[[RunReport], str]
) -> None:
    dom = dom_of(tmp_path, used(walk(32, {"blocks": 6, "mlp_channels": 20, "heads": 4})), 500)
    assert noted(dom, "wide") == "fits"


def test_a_screenshot_shows_a_page(tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    browse(tmp_path, run_page(full()), "--window-size=1440,900", f"--screenshot={shot}")
    assert shot.stat().st_size > 50_000
