"""Published results of other methods: beside ours where the protocol agrees, else only listed."""

from pathlib import Path
from typing import Any

import pytest
from support_compare import write_method, write_run
from support_report import WIKITEXT2

from pipeline.methods import methods
from pipeline.report.charts import figures_of_comparison
from pipeline.report.charts.base import Chart
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.published import (
    FIVE_TASKS,
    PAPER,
    PublishedPoint,
    does_the_same,
    nearest,
    published_for,
)
from pipeline.report.compare.records import ComparedRun, read_run
from pipeline.report.compare.table import published_rows
from pipeline.report.pages.comparison import comparison_page

MODEL = "meta-llama/Llama-2-7b-hf"
AS_PUBLISHED: dict[str, Any] = {
    "model__path": MODEL, "evaluated": sorted(FIVE_TASKS), "on": WIKITEXT2, "ppl": 18.6,
}  # fmt: skip


@pytest.fixture
def shortgpt(tmp_path: Path) -> ComparedRun:
    run = write_method(tmp_path / "a", "shortgpt", 21, prune__units="layers", **AS_PUBLISHED)
    return read_run(run)


def points(run: ComparedRun) -> list[PublishedPoint]:
    return list(published_for([run]).points)


def row(run: ComparedRun, method: str, ppl: str) -> tuple[str, ...]:
    """The row of a published method with that perplexity."""
    rows = published_rows([run], published_for([run]))
    return next(r.cells for r in rows if r.cells[1] == method and r.cells[3] == ppl)


def test_averages_are_those_of_the_tasks(shortgpt: ComparedRun) -> None:
    told = [point for point in points(shortgpt) if point.by_task_percent]
    assert len(told) == 4
    for point in told:
        assert set(point.by_task_percent) == set(FIVE_TASKS)
        mean = sum(point.by_task_percent.values()) / len(point.by_task_percent)
        assert point.accuracy_percent == pytest.approx(mean, abs=0.006)


def test_a_method_is_beside_its_published_result(shortgpt: ComparedRun) -> None:
    cells = row(shortgpt, "ShortGPT", "18.45")
    assert cells[2:5] == ("21.0 %", "18.45", "58.2 %")
    assert cells[6] == "18.60"
    assert cells[7] != "–"  # noqa: RUF001
    assert row(shortgpt, "LaCo", "50.39")[5:8] == ("–", "–", "–")  # noqa: RUF001


def test_protocols_are_not_mixed(shortgpt: ComparedRun) -> None:
    nine_tasks = next(
        p for p in points(shortgpt) if p.method == "ShortGPT" and not p.source.is_five_tasks
    )
    cells = published_rows([shortgpt], published_for([shortgpt]))[
        points(shortgpt).index(nine_tasks)
    ].cells
    assert cells[6:8] == ("18.60", "–")  # noqa: RUF001
    other_windows = [p for p in points(shortgpt) if p.source.name == "Týr"]
    assert len(other_windows) == 19
    for point in other_windows:
        assert nearest(point, [shortgpt]) is None


def test_another_method_is_not_beside(tmp_path: Path, shortgpt: ComparedRun) -> None:
    point = next(p for p in points(shortgpt) if p.method == "ShortGPT")
    by_blocks = write_method(tmp_path / "b", "shortgpt", 21, prune__units="blocks")
    assert does_the_same(shortgpt, point)
    assert not does_the_same(read_run(by_blocks), point)
    assert not does_the_same(read_run(write_run(tmp_path / "c", 21)), point)


def test_blockpruner_is_multipruner_with_blocks_alone(tmp_path: Path) -> None:
    point = next(p for p in published_for_llama(tmp_path) if p.method == "BlockPruner")
    own = read_run(write_method(tmp_path / "own", "blockpruner", 22))
    alone = read_run(write_run(tmp_path / "alone", 22, (100, 0, 0)))
    mixed = read_run(write_run(tmp_path / "mixed", 22, (44, 52, 4)))
    assert [does_the_same(run, point) for run in (own, alone, mixed)] == [True, True, False]


def published_for_llama(folder: Path) -> list[PublishedPoint]:
    return points(read_run(write_run(folder / "llama", 22, model__path=MODEL)))


def test_of_other_methods_only_those_of_our_runs_are_drawn(shortgpt: ComparedRun) -> None:
    figures = figures_of_comparison(Comparison("x", (shortgpt,)))
    drawn = {
        chart.y.title.partition(",")[0]: {line.name for line in chart.lines}
        for chart in figures
        if isinstance(chart, Chart)
        if any("published" in line.name for line in chart.lines)
    }
    table, other = "published (MultiPruner, table 1): ShortGPT", "published (LinearPatch): ShortGPT"
    papers = {"published: MultiPruner", "published: BlockPruner"}
    assert drawn == {
        "percent": {"shortgpt", table, *papers},
        "perplexity": {"shortgpt", table, other, *papers},
    }


def test_the_page_names_every_source_with_its_protocol(shortgpt: ComparedRun) -> None:
    comparison = Comparison("x", (shortgpt,))
    page = comparison_page(comparison)
    names = [source.name for source in comparison.published.sources]
    assert names == [PAPER, "MultiPruner, table 1", "BlockPruner", "LinearPatch", "Týr"]
    assert "windows of 4096" in page
    assert "arXiv 2503.09657" in page


def test_settings_of_ours_are_keys_of_the_methods(shortgpt: ComparedRun) -> None:
    known = methods()
    for point in points(shortgpt):
        settings = dict(point.ours or {})
        method = known.get(settings.pop("prune.method", ""))
        if method is not None:
            fields = {f"prune.{name}" for name in method.section.model_fields}
            assert settings.keys() <= fields
