"""What stands in a terminal: text of users as it is."""

from pathlib import Path

import pytest
from rich.table import Table

from pipeline.jobs import following
from pipeline.jobs.status import StageStatus
from pipeline.runs.display import Terminal, display_on
from pipeline.screen import screen

NASTY = ("order=[blocks,heads]", "/m[/m]", "x[red]z", "rack[/]", ":smile:", r"a\[b]", "[link=x]y")


@pytest.mark.parametrize("text", NASTY)
def test_text_is_printed_as_it_is_wherever_it_stands(text: str) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    console = screen(width=100)
    with console.capture() as captured:
        console.print(text)
        console.rule(text)
        console.print(table)
    assert captured.get().count(text) == 5


@pytest.mark.parametrize("text", NASTY)
def test_a_display_says_what_it_is_given(text: str) -> None:
    console = screen(width=100)
    display = Terminal(console, 20)
    display.bar.update(display.task, description=text)
    with console.capture() as captured:
        display.warning(text)
        display.note(text)
        display.stage_ended(text, "new", 3)
        console.print(display.bar.get_renderable())
    assert captured.get().count(text) == 4


@pytest.mark.parametrize("text", NASTY)
def test_a_table_of_runs_says_why_each_stage_stands_as_it_does(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [StageStatus("prune", "key", "failed", reason=text, node=text, job_id=text)]
    monkeypatch.setattr(following, "of_runs", lambda _: [states])
    console = screen(width=200)
    with console.capture() as captured:
        console.print(following.table_of([Path("run")])[0])
    assert captured.get().count(text) == 3


def test_what_goes_to_a_file_has_room_for_wide_tables(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(*(f"a heading of column {number}" for number in range(6)))
    screen().print(table)
    assert "a heading of column 5" in capsys.readouterr().out


def test_a_file_has_a_line_for_what_goes_on_and_python_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for console in (screen(), screen(is_quiet=True)):
        display = display_on(console, 20)
        display.stage_started("prune")
        display.stage_ended("prune", "new", 3)
    assert capsys.readouterr().out == "prune started\nprune new in 3 s\n"
