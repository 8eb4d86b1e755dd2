"""Runs of one ratio in the order of their accuracy, and which of them differ beyond noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from pipeline.report.compare.entries import Entry, by_model, by_target, comparable, entries_of
from pipeline.report.compare.noise import Difference
from pipeline.report.compare.quantities import ACCURACY, value_text
from pipeline.report.compare.records import ComparedRun
from pipeline.report.compare.seeds import only_seeds_differ
from pipeline.report.wording import NOTHING, number

COLUMNS = (
    "Target", "Place", "Setting", "Removed", "Accuracy", "Below the best", "Not told apart from"
)  # fmt: skip
LEGEND = (
    "Below the best: points, with an interval of 95 %. The last column has the places that a run "
    "cannot be told apart from."
)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A run's place among those of its ratio."""

    place: int
    """From 1, by accuracy alone."""
    entry: Entry
    below: Difference | None
    """How far the best is above it; None of the best."""
    alike: tuple[int, ...]
    """Places of those that it cannot be told apart from."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Runs of one model with the same target."""

    model: str
    """Its name; empty where there is only one."""
    ratio_percent: float
    """What was to be removed."""
    ranked: tuple[Ranked, ...]


def rankings(runs: Sequence[ComparedRun]) -> list[Ranking]:
    """Every target ratio that several runs have whose accuracy was measured alike.

    Runs that differ only in seeds have no ranking: the best of them is luck.
    """
    models = by_model(comparable(list(entries_of(runs, ACCURACY))))
    return [
        Ranking(entries[0].run.model_name if len(models) > 1 else "", ratio, _ranked(entries))
        for own in models.values()
        for ratio, entries in by_target(own).items()
        if not only_seeds_differ([entry.run for entry in entries])
    ]


def _ranked(entries: Sequence[Entry]) -> tuple[Ranked, ...]:
    ordered = sorted(entries, key=lambda entry: -entry.value.value)
    alike: list[list[int]] = [[] for _ in ordered]
    for upper, better in enumerate(ordered):
        for lower in range(upper + 1, len(ordered)):
            if better.above(ordered[lower]).is_noise:
                alike[upper].append(lower + 1)
                alike[lower].append(upper + 1)
    return tuple(
        Ranked(
            place + 1,
            entry,
            ordered[0].above(entry) if place else None,
            tuple(alike[place]),
        )
        for place, entry in enumerate(ordered)
    )


def one_digit(points: float) -> str:
    """Without a plus sign."""
    return number(points, 1)


def points_text(difference: Difference, shown: Callable[[float], str] = one_digit) -> str:
    """Points, with from where to where they may be, where that is known."""
    if difference.known_by == "values":
        return shown(difference.points)
    low, high = shown(difference.low), shown(difference.high)
    return f"{shown(difference.points)} ({low} to {high})"


def ranking_rows(ranked: Sequence[Ranking]) -> list[tuple[str, ...]]:
    """A row for each place; cells as in ``COLUMNS``."""
    return [
        (
            f"{ranking.model} {ranking.ratio_percent:g} %".strip(),
            f"{each.place}",
            each.entry.label,
            f"{each.entry.removed_percent:.1f} %",
            value_text(each.entry.value, "%"),
            points_text(each.below) if each.below else NOTHING,
            ", ".join(map(str, each.alike)) or NOTHING,
        )
        for ranking in ranked
        for each in ranking.ranked
    ]


def ranking_table(ranked: Sequence[Ranking]) -> Table:
    """The same for a terminal."""
    table = Table(
        title="Ranking by accuracy",
        title_justify="left",
        caption=LEGEND,
        caption_justify="left",
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "Setting" else "right")
    table.columns[COLUMNS.index("Setting")].overflow = "fold"
    last = ""
    for cells in ranking_rows(ranked):
        if last and cells[0] != last:
            table.add_section()
        table.add_row(Text("" if cells[0] == last else cells[0]), *map(Text, cells[1:]))
        last = cells[0]
    return table
