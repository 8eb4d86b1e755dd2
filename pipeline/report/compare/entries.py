"""Finished runs with what they are worth: what answers and rankings are made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.report.compare.groups import Group, groups
from pipeline.report.compare.noise import Difference, Score, difference
from pipeline.report.compare.quantities import Quantity, devices
from pipeline.report.compare.records import ComparedRun, Value, main_protocol

NOTED_POINTS = 1.5
"""Runs with one target that removed less or more than others by so many points say so."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished run with what it is worth."""

    label: str
    """Its group's."""
    run: ComparedRun
    value: Value
    dense: Value | None

    @property
    def removed_percent(self) -> float:
        """What went."""
        return self.run.removed_percent or 0.0

    @property
    def score(self) -> Score:
        """Its accuracy."""
        return Score(self.value, self.run.tasks())

    @property
    def dense_score(self) -> Score | None:
        """The dense model's accuracy; None where it was not measured in the same way."""
        return Score(self.dense, self.run.tasks(False)) if self.dense else None

    def above(self, other: "Entry") -> Difference:
        """How far its accuracy is above another's."""
        return difference(self.score, other.score)

    @property
    def change(self) -> Difference | None:
        """How far its accuracy is above the dense model's; None where that is not known."""
        return difference(self.score, self.dense_score) if self.dense_score else None


def entries_of(runs: Sequence[ComparedRun], quality: Quantity) -> Iterator[Entry]:
    """Every finished run that measured the quality, group by group."""
    for group in groups(runs):
        for run in group.runs:
            value, dense = quality.of(run, True), quality.of(run, False)
            if run.is_done and value is not None and run.removed_percent is not None:
                alike = dense if dense and dense.protocol == value.protocol else None
                yield Entry(_name(group, run), run, value, alike)


def _name(group: Group, run: ComparedRun) -> str:
    """The group's label, with the device where it was measured on several."""
    several = len(devices(group.runs)) > 1
    return f"{group.label} on {run.device}" if several else group.label


def comparable(entries: Sequence[Entry]) -> list[Entry]:
    """Those that were measured as most were."""
    most = main_protocol(
        [entry.run for entry in entries], (entry.value.protocol for entry in entries)
    )
    return [entry for entry in entries if entry.value.protocol == most]


def by_model(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries of each model, by its path."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.run.model_path, []).append(entry)
    return found


def by_target(entries: Sequence[Entry]) -> dict[float, list[Entry]]:
    """Entries that were to remove the same, where there are several; the least removed first."""
    found: dict[float, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.run.target_percent or entry.removed_percent, []).append(entry)
    return {ratio: found[ratio] for ratio in sorted(found) if len(found[ratio]) > 1}


def ended_apart(entries: Sequence[Entry]) -> bool:
    """Whether runs with the same target removed clearly different shares."""
    removed = [entry.removed_percent for entry in entries]
    return max(removed) - min(removed) >= NOTED_POINTS
