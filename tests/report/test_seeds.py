"""Runs that differ only in seeds: told as mean and spread, and never as a choice."""

from dataclasses import replace
from pathlib import Path

import pytest
from support_compare import write_run

from pipeline.report.compare.answers import answers
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.paper_table import SEEDS, paper_table
from pipeline.report.compare.ranking import rankings
from pipeline.report.compare.records import ComparedRun, read_run
from pipeline.report.compare.seeds import over_seeds, seed_rows
from pipeline.report.compare.table import columns, runs_tables
from pipeline.report.pages.comparison import comparison_page


@pytest.fixture
def draws(tmp_path: Path) -> list[ComparedRun]:
    """Three seeds of one setting."""
    return [
        read_run(
            write_run(
                tmp_path / f"seed{seed}", 20, accuracy=0.5 + seed / 100, ppl=10 + seed,
                calibration__seed=seed,
            )
        )
        for seed in range(3)
    ]  # fmt: skip


def test_mean_and_standard_deviation(draws: list[ComparedRun]) -> None:
    (row,) = seed_rows(over_seeds(draws))
    assert row[:3] == ("20 %", "44:52:4", "3")
    assert row[4:] == ("51.0 ± 1.0 % (50.0 to 52.0)", "11.00 ± 1.00 (10.00 to 12.00)")
    assert "51.0 ± 1.0 % (50.0 to 52.0)" in comparison_page(Comparison("x", tuple(draws)))


def test_no_seed_is_ranked_above_another(draws: list[ComparedRun]) -> None:
    assert rankings(draws) == []
    unlike = [replace(run, pruning=None) for run in draws]
    said = {answer.question: answer.text for answer in answers(unlike)}["20 % to remove"]
    assert said.startswith("3 runs differ only in seeds: accuracy 51.0")


def test_a_paper_has_one_row_for_all_seeds(draws: list[ComparedRun], tmp_path: Path) -> None:
    other = read_run(write_run(tmp_path / "other", 20, (100, 0, 0), ppl=9.0, calibration__seed=0))
    table = paper_table([*draws, other])
    assert [row[0].text for row in table.blocks[1]] == ["44:52:4, 3 seeds", "100:0:0"]
    assert [row[3].text for row in table.blocks[1]] == ["11.00 ± 1.00", "9.00"]
    assert SEEDS in table.notes
    assert len(rankings([*draws, other])) == 1


def test_the_same_seed_measured_twice_is_no_second_draw(
    draws: list[ComparedRun], tmp_path: Path
) -> None:
    again = read_run(
        write_run(tmp_path / "again", 20, calibration__seed=2, evaluate__text_tokens=99)
    )
    assert over_seeds([draws[2], again]) == []
    assert SEEDS not in paper_table([draws[2], again]).notes


def test_every_task_has_a_column_on_the_page(draws: list[ComparedRun]) -> None:
    tasks = [task.task for task in draws[0].tasks()]
    assert len(tasks) > 1
    assert columns(draws)[3 : 3 + len(tasks)] == tasks
    shown = {str(c.header) for table in runs_tables("x", draws, 200) for c in table.columns}
    assert not set(tasks) & shown
