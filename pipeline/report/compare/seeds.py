"""Runs that differ only in seeds, as one: mean and spread of what they are worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from rich.table import Table
from rich.text import Text

from pipeline.report.compare.entries import comparable, entries_of
from pipeline.report.compare.groups import Group, seedless
from pipeline.report.compare.quantities import ACCURACY, PERPLEXITY, Quantity
from pipeline.report.compare.records import ComparedRun
from pipeline.report.wording import NOTHING, number

SEED_COLUMNS = ("Target", "Setting", "Seeds", "Removed", "Accuracy", "Perplexity")
SEED_LEGEND = "Mean ± standard deviation over runs that differ only in seeds (least to most)."


@dataclass(frozen=True, slots=True)
class Spread:
    """What a number comes to over seeds."""

    mean: float
    deviation: float
    """Standard deviation of the runs, not of their mean."""
    least: float
    most: float
    runs: int

    def text(self, digits: int, unit: str = "") -> str:
        """With deviation, and smallest and largest."""
        average, deviation, least, most = (
            number(value, digits) for value in (self.mean, self.deviation, self.least, self.most)
        )
        return f"{average} ± {deviation}{unit} ({least} to {most})"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Finished runs of one setting and target with several seeds."""

    group: Group
    accuracy: Spread | None
    """In percent; None where fewer than two measured it as most runs did."""
    perplexity: Spread | None

    @property
    def target_percent(self) -> float | None:
        """What was to be removed."""
        return self.group.runs[0].target_percent

    @property
    def removed(self) -> str:
        """What went, from the least to the most."""
        shares = sorted({number(run.removed_percent, 1) for run in self.group.runs}, key=float)
        return f"{shares[0]} %" if len(shares) == 1 else f"{shares[0]} to {shares[-1]} %"

    @property
    def in_words(self) -> str:
        """Both, for a sentence."""
        known = [
            f"{name} {spread.text(digits, unit)}"
            for name, spread, digits, unit in (
                ("accuracy", self.accuracy, 1, " %"),
                ("perplexity", self.perplexity, 2, ""),
            )
            if spread
        ]
        return ", ".join(known) or "nothing was measured"


def over_seeds(runs: Sequence[ComparedRun]) -> list[Seeds]:
    """Every setting and target that several seeds have, in the order of the runs."""
    done = [run for run in runs if run.is_done and run.removed_percent is not None]
    accuracies, perplexities = (_values(done, quantity) for quantity in (ACCURACY, PERPLEXITY))
    return [
        Seeds(group, _spread(group, accuracies), _spread(group, perplexities))
        for group in seedless(done)
        if len(group.runs) > 1
    ]


def only_seeds_differ(runs: Sequence[ComparedRun]) -> bool:
    """Whether finished runs of one target are draws of one setting: none of them is a choice."""
    return len(runs) > 1 and len(seedless(runs)) == 1


def _values(runs: Sequence[ComparedRun], quantity: Quantity) -> dict[str, float]:
    """Those that were measured alike, by folder."""
    entries = comparable(list(entries_of(runs, quantity)))
    return {entry.run.folder: entry.value.value for entry in entries}


def _spread(group: Group, values: dict[str, float]) -> Spread | None:
    known = [values[run.folder] for run in group.runs if run.folder in values]
    if len(known) < 2:  # noqa: PLR2004 - one value has no spread
        return None
    return Spread(mean(known), stdev(known), min(known), max(known), len(known))


def seed_rows(found: Sequence[Seeds]) -> Iterator[tuple[str, ...]]:
    """A row for each; cells as in ``SEED_COLUMNS``."""
    for each in found:
        target = each.target_percent
        yield (
            NOTHING if target is None else f"{target:g} %",
            each.group.label,
            str(len(each.group.runs)),
            each.removed,
            each.accuracy.text(1, " %") if each.accuracy else NOTHING,
            each.perplexity.text(2) if each.perplexity else NOTHING,
        )


def seeds_table(found: Sequence[Seeds]) -> Table:
    """The same for a terminal."""
    table = Table(
        title="Over seeds", title_justify="left", caption=SEED_LEGEND, caption_justify="left"
    )
    for column in SEED_COLUMNS:
        table.add_column(column, justify="left" if column == "Setting" else "right")
    for row in seed_rows(found):
        table.add_row(*(Text(cell.replace(" (", "\n(")) for cell in row))
    return table
