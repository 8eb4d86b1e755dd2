"""A search over configuration keys as plain values: its trials, its front, and what it says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from rich.table import Table

from pipeline.files import Json
from pipeline.report.compare.answers import Answer
from pipeline.report.wording import number

SMALL, LARGE = 0.05, 0.3
"""Shares of importance: below the one a key hardly matters, from the other on it decides."""
FEW = 5
MOST_SHOWN = 12
"""Runs of the front in a terminal."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Something that the search makes as good as it can."""

    name: str
    unit: str
    is_higher_better: bool

    def loss(self, value: float) -> float:
        """Where less is better."""
        return -value if self.is_higher_better else value


@dataclass(frozen=True, slots=True)
class Key:
    """What varies, as an axis."""

    name: str
    low: float | None = None
    """With ``high``: a range of numbers."""
    high: float | None = None
    choices: tuple[Json, ...] = ()

    def place(self, value: Json) -> float:
        """Where a value is, from 0 to 1."""
        if self.low is not None and self.high is not None:
            return (float(value) - self.low) / (self.high - self.low)
        return self.choices.index(value) / max(1, len(self.choices) - 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run has of a goal."""

    value: float
    ends: tuple[float, float] | None = None
    """From where to where it may be."""


@dataclass(frozen=True, slots=True)
class SearchedRun:
    """A trial of the search."""

    number: int
    generation: int
    values: Mapping[str, Json]
    """By the names of keys."""
    readings: tuple[Reading, ...] = ()
    """By goal; none where it failed or is not done."""
    missed: Mapping[str, float] = field(default_factory=dict)
    """Constraints that it does not meet, and by which share of their bound; met ones are not in."""
    on_front: bool = False
    state: str = "done"
    run: str = ""
    reason: str = ""

    @property
    def counts(self) -> bool:
        """Whether it may be taken."""
        return bool(self.readings) and not self.missed


@dataclass(frozen=True, slots=True)
class SearchReport:
    """A whole search."""

    name: str
    about: str
    goals: tuple[Goal, ...]
    keys: tuple[Key, ...]
    runs: tuple[SearchedRun, ...]
    reference: tuple[float, ...]
    """By goal: from where the hypervolume is measured; none before a run counts."""
    hypervolume: tuple[float, ...]
    """After each run."""
    importance: Mapping[str, Mapping[str, float]]
    """By goal and key: which share of what is good the key decides; none for few runs."""

    @property
    def front(self) -> list[SearchedRun]:
        """The runs that no other beats, best in the first goal first."""
        members = [run for run in self.runs if run.on_front]
        return sorted(members, key=lambda run: self.goals[0].loss(run.readings[0].value))

    @property
    def answers(self) -> list[Answer]:
        """What to take, and what the search says about every key."""
        return [Answer(question, text) for question, text in self._answers()]

    def _answers(self) -> Iterator[tuple[str, str]]:
        front = self.front
        if not front:
            yield from self._nothing()
            return
        for place, goal in enumerate(self.goals):
            losses = [goal.loss(run.readings[place].value) for run in front]
            best = front[losses.index(min(losses))]
            which = "highest" if goal.is_higher_better else "lowest"
            yield (
                f"{which.capitalize()} {goal.name}",
                self.in_words(best) + self._alike(best, place),
            )
        if len(self.goals) > 1:
            yield "All goals together", f"{self.in_words(self._middle(front))}; {_of(front, self)}"
            yield "How far it came", self._progress()
        yield from self._about_keys(front)
        failed = [run for run in self.runs if run.state == "failed"]
        if failed:
            first = f"trial {failed[0].number}: {failed[0].reason}"
            yield "Failed", f"{len(failed)} of {len(self.runs)} runs; {first}"

    def _nothing(self) -> Iterator[tuple[str, str]]:
        measured = [run for run in self.runs if run.readings]
        if not measured:
            yield "What to take", "no run is done yet"
            return
        nearest = min(measured, key=lambda run: sum(run.missed.values()))
        missed = "; ".join(f"{text} by {share:.1%}" for text, share in nearest.missed.items())
        yield (
            "What to take",
            f"no run met the constraints; nearest is {self.in_words(nearest)}, which misses "
            f"{missed}",
        )

    def in_words(self, run: SearchedRun) -> str:
        """A run, with its values and what it has."""
        has = ", ".join(
            f"{goal.name} {reading_text(reading, goal)}"
            for goal, reading in zip(self.goals, run.readings, strict=True)
        )
        values = ", ".join(f"{key} {_text(value)}" for key, value in run.values.items())
        return f"trial {run.number}{f' ({values})' if values else ''}: {has}"

    def _alike(self, best: SearchedRun, place: int) -> str:
        """Which runs cannot be told from the best in a goal: their intervals overlap."""
        ends = best.readings[place].ends
        if ends is None:
            return ""
        alike = [
            str(run.number)
            for run in self.runs
            if run.counts and run is not best and _overlap(ends, run.readings[place].ends)
        ]
        if not alike:
            return ""
        more = f" and {len(alike) - FEW} more" if len(alike) > FEW else ""
        return f"; in this it cannot be told from trials {', '.join(alike[:FEW])}{more}"

    def _middle(self, front: Sequence[SearchedRun]) -> SearchedRun:
        """The run with the largest gain over the reference point by itself."""

        def gain(run: SearchedRun) -> float:
            pairs = zip(self.goals, run.readings, self.reference, strict=True)
            return prod(max(0.0, g.loss(at) - g.loss(r.value)) for g, r, at in pairs)

        return max(front, key=gain)

    def _progress(self) -> str:
        """The hypervolume, and what the last generation added to it."""
        point = ", ".join(
            f"{goal.name} {number(at)}" for goal, at in zip(self.goals, self.reference, strict=True)
        )
        volume = self.hypervolume[-1]
        last = self.runs[-1].generation
        before = [v for run, v in zip(self.runs, self.hypervolume, strict=True)
                  if run.generation < last]  # fmt: skip
        text = f"hypervolume {volume:.4g} from {point}"
        if not before or not volume:
            return text
        added = (volume - before[-1]) / volume
        return f"{text}; the last of {last + 1} generations added {added * 100:.1f} % of it"

    def _about_keys(self, front: Sequence[SearchedRun]) -> Iterator[tuple[str, str]]:
        for key in self.keys:
            shares = [f"{goal} {of[key.name]:.0%}" for goal, of in self.importance.items() if of]
            highest = max((of[key.name] for of in self.importance.values() if of), default=None)
            if highest is None:
                weight = "too few runs say how much it matters"
            elif highest >= LARGE:
                weight = f"decides ({', '.join(shares)})"
            else:
                weight = f"{'hardly ' if highest < SMALL else ''}matters ({', '.join(shares)})"
            yield key.name, f"{weight}; {_on_front(key, front)}"


def _of(front: Sequence[SearchedRun], search: SearchReport) -> str:
    done = sum(bool(run.readings) for run in search.runs)
    return f"{len(front)} of {done} runs are beaten by no other"


def _on_front(key: Key, front: Sequence[SearchedRun]) -> str:
    """Which values the front has."""
    values = [run.values[key.name] for run in front]
    if key.low is None:
        counted = {_text(choice): values.count(choice) for choice in key.choices}
        shown = ", ".join(f"{text} in {count}" for text, count in counted.items() if count)
        return f"on the front {shown} of {len(front)}"
    low, high = min(values), max(values)
    span = _text(low) if low == high else f"{_text(low)} to {_text(high)}"
    return f"on the front {span}, of {_text(key.low)} to {_text(key.high)}"


def _overlap(one: tuple[float, float], other: tuple[float, float] | None) -> bool:
    return other is not None and one[0] <= other[1] and other[0] <= one[1]


def reading_text(reading: Reading, goal: Goal) -> str:
    """The value with its interval and unit."""
    ends = f" ({number(reading.ends[0])} to {number(reading.ends[1])})" if reading.ends else ""
    return f"{number(reading.value)}{ends} {goal.unit}".strip()


def _text(value: Json) -> str:
    return f"{value:g}" if isinstance(value, int | float) and value is not True else str(value)


def columns_of(search: SearchReport) -> list[str]:
    """Names of the cells of ``rows_of``."""
    goals = [f"{'↑' if goal.is_higher_better else '↓'} {goal.name}" for goal in search.goals]
    return ["trial", *(key.name for key in search.keys), *goals, "run"]


def rows_of(search: SearchReport) -> Iterator[list[str]]:
    """The front, a run in a row."""
    for run in search.front:
        pairs = zip(run.readings, search.goals, strict=True)
        yield [
            str(run.number),
            *(_text(run.values[key.name]) for key in search.keys),
            *(reading_text(reading, goal) for reading, goal in pairs),
            run.run,
        ]


def front_table(search: SearchReport) -> Table:
    """The front, or as much of it as fits."""
    table = Table(
        title=f"{search.name}: runs that no other beats", title_justify="left", header_style="bold"
    )
    for heading in columns_of(search):
        table.add_column(heading)
    rows = list(rows_of(search))
    step = max(1, -(-len(rows) // MOST_SHOWN))
    for row in rows[::step]:
        table.add_row(*row)
    if step > 1:
        table.caption = f"{len(rows[::step])} of {len(rows)}; all are in study.html"
    return table
