"""Which runs differ beyond noise: by the same items where they were kept, else by errors."""

import random
from pathlib import Path

import pytest
from support_compare import write_run
from support_report import record, shape

from pipeline.measure.record import Record, TaskScore
from pipeline.pruning.state import PruningState
from pipeline.report.compare.answers import answers, notes
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.noise import Difference, Score, difference
from pipeline.report.compare.ranking import ranking_rows, rankings
from pipeline.report.compare.records import ComparedRun, Value, read_run
from pipeline.report.pages.comparison import comparison_page


def marks(right: int, items: int = 400, swapped: int = 0) -> str:
    """``right`` items of all; ``swapped`` of them are others than the first."""
    wrong = items - right
    kept = "1" * (right - swapped) + "0" * swapped
    return kept + "1" * swapped + "0" * (wrong - swapped)


def scored(*tasks: str) -> Score:
    shares = [task.count("1") / len(task) for task in tasks]
    scores = tuple(
        TaskScore(f"task{place}", len(task), share, 0.02, None, None, task)
        for place, (task, share) in enumerate(zip(tasks, shares, strict=True))
    )
    return Score(Value(sum(shares) / len(shares) * 100, 2.0, "alike"), scores)


def by_resampling(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[float, float]:
    """The same interval item by item, drawn by another generator."""
    generator = random.Random(3)
    means = []
    for _ in range(2000):
        drawn = []
        for ours, theirs in zip(one, other, strict=True):
            items = generator.choices(range(len(ours)), k=len(ours))
            drawn.append(sum(int(ours[i]) - int(theirs[i]) for i in items) / len(ours))
        means.append(sum(drawn) / len(drawn) * 100)
    means.sort()
    return means[50], means[1949]


def test_the_interval_is_that_of_resampled_items() -> None:
    one = (marks(60, 100), marks(30, 50, 5))
    other = (marks(50, 100, 8), marks(28, 50))
    found = difference(scored(*one), scored(*other))
    low, high = by_resampling(one, other)
    assert found.points == pytest.approx(7.0)
    assert found.low == pytest.approx(low, abs=0.7)
    assert found.high == pytest.approx(high, abs=0.7)
    assert found.known_by == "items"


def test_the_interval_is_the_same_every_time_and_turns_with_the_sign() -> None:
    one, other = scored(marks(220)), scored(marks(200, swapped=20))
    found, back = difference(one, other), difference(other, one)
    assert found == difference(one, other)
    assert back.points == -found.points
    assert back.low == pytest.approx(-found.high, abs=0.3)


def test_equal_answers_are_no_difference() -> None:
    same = scored(marks(100))
    assert difference(same, same) == Difference(0.0, 0.0, 0.0, "items")
    assert difference(same, same).is_noise


def test_pairs_tell_more_than_errors() -> None:
    better, worse = scored(marks(212)), scored(marks(200))
    older = tuple(TaskScore(t.task, t.items, t.acc, 0.02, None, None) for t in worse.tasks)
    paired, apart = difference(better, worse), difference(better, Score(worse.value, older))
    assert (paired.known_by, paired.is_noise) == ("items", False)
    assert (apart.known_by, apart.is_noise) == ("errors", True)
    assert apart.low == pytest.approx(3.0 - 2 * 8**0.5)


def test_other_counts_of_items_are_not_paired() -> None:
    assert difference(scored(marks(90, 100)), scored(marks(90, 101))).known_by == "errors"


def test_records_of_earlier_versions_are_read() -> None:
    found = record(PruningState.dense(shape()), 0)
    written = found.to_json()
    for task in written["tasks"]:
        del task["acc_items"], task["acc_norm_items"]
    read = Record.from_json(written)
    assert read.tasks == found.tasks
    assert read.tasks[0].right_items is None


@pytest.fixture
def three(tmp_path: Path) -> list[ComparedRun]:
    """Two that differ by a few items either way, and one that is clearly worse."""
    told = {
        "best": ((44, 52, 4), marks(240)),
        "near": ((100, 0, 0), marks(238, swapped=20)),
        "worse": ((0, 100, 0), marks(215)),
    }
    return [
        read_run(write_run(tmp_path / name, 20, shares, items=items))
        for name, (shares, items) in told.items()
    ]


def test_a_ranking_says_which_differ_beyond_noise(three: list[ComparedRun]) -> None:
    (ranking,) = rankings(three)
    assert [each.entry.run.name for each in ranking.ranked] == ["best", "near", "worse"]
    assert [each.alike for each in ranking.ranked] == [(2,), (1,), ()]
    rows = ranking_rows([ranking])
    assert rows[0][:3] == ("20 %", "1", "44:52:4")
    assert rows[2][5].startswith("6.2 (")
    assert [row[6] for row in rows] == ["2", "1", "–"]  # noqa: RUF001


def test_answers_and_notes_say_so(three: list[ComparedRun]) -> None:
    said = {answer.question: answer.text for answer in answers(three)}["20 % to remove"]
    assert "the best 2 of 3 cannot be told apart: 44:52:4 (60.0" in said
    assert any(
        "paired bootstrap over the same items (10,000 draws" in note for note in notes(three)
    )
    assert not any("standard errors" in note for note in notes(three))
    clear = {answer.question: answer.text for answer in answers([three[0], three[2]])}
    assert "44:52:4 keeps most accuracy: 60.0" in clear["20 % to remove"]
    assert "Next is 0:100:0, 6.2 (" in clear["20 % to remove"]


def test_losses_against_the_dense_model_are_paired(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", 10, items=marks(392)))
    (said,) = [a.text for a in answers([run]) if a.question.startswith("2 points")]
    assert "removes most: −2.0 (−2.8 to −1.3) points of accuracy" in said  # noqa: RUF001


def test_where_items_were_not_kept_errors_tell_apart(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "new", 20, items=marks(100, 200))),
        read_run(write_run(tmp_path / "old", 20, (100, 0, 0), accuracy=0.49)),
        read_run(write_run(tmp_path / "other", 20, (0, 100, 0), items=marks(98, 200))),
    ]
    said = notes(runs)
    assert any("paired bootstrap" in note for note in said)
    assert any(note.startswith("Of runs whose items were not kept") for note in said)


def test_items_are_neither_in_the_page_nor_in_its_tables(three: list[ComparedRun]) -> None:
    page = comparison_page(Comparison("x", tuple(three)))
    assert "Ranking at equal ratio" in page
    assert "11111" not in page
