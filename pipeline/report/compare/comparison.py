"""Runs side by side, gathered once: what table, page, picture and CSV are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline import files
from pipeline.report.compare.answers import Answer, answers, notes
from pipeline.report.compare.figures import Chart, RemovalMap, charts, removal_maps, trade_offs
from pipeline.report.compare.groups import Group, groups
from pipeline.report.compare.published import Published, published_for
from pipeline.report.compare.records import ComparedRun
from pipeline.report.compare.table import to_csv

PAGE, PICTURE, VALUES = "comparison.html", "comparison.png", "comparison.csv"


@dataclass(frozen=True)
class Comparison:
    """Runs to choose from."""

    name: str
    runs: tuple[ComparedRun, ...]

    @cached_property
    def groups(self) -> list[Group]:
        """Runs that differ only in their target ratio."""
        return groups(self.runs)

    @cached_property
    def published(self) -> Published:
        """The paper's points for these models."""
        return published_for(self.runs)

    @cached_property
    def answers(self) -> list[Answer]:
        """Which to take."""
        return answers(self.runs)

    @cached_property
    def notes(self) -> list[str]:
        """What to know before comparing."""
        return notes(self.runs)

    @cached_property
    def charts(self) -> list[Chart]:
        """Every quantity against the removed ratio."""
        return charts(self.runs, self.published)

    @cached_property
    def trade_offs(self) -> list[Chart]:
        """Quality against latency."""
        return trade_offs(self.runs)

    @cached_property
    def maps(self) -> list[RemovalMap]:
        """What is left of every layer, run by run."""
        return removal_maps(self.runs)

    @property
    def about(self) -> str:
        """Models, and how many runs are done."""
        models = dict.fromkeys(run.model_name for run in self.runs if run.model_name)
        done = sum(run.is_done for run in self.runs)
        return f"{', '.join(models)}  ·  {done} of {len(self.runs)} runs done"


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write page, picture and CSV into ``folder``; where they are."""
    from pipeline.report.compare.page import render_comparison
    from pipeline.report.compare.picture import draw_comparison

    contents: Sequence[tuple[str, str | bytes]] = (
        (PAGE, render_comparison(comparison)),
        (PICTURE, draw_comparison(comparison)),
        (VALUES, to_csv(comparison.runs)),
    )
    for name, content in contents:
        files.replace(folder / name, content)
    return [folder / name for name, _ in contents]
