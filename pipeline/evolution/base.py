"""What a search over states is, what it is given, and what it gives back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pipeline.files import Json
from pipeline.pruning.phases import Phase
from pipeline.pruning.state import PruningState

Measure = Literal["perplexity", "divergence"]
"""Of a state on text: perplexity, or KL(dense || state) of the next tokens in nats."""


class Evaluate(Protocol):
    """Evaluates states; each state, piece of text and measure once and for all."""

    @property
    def rungs(self) -> int:
        """Pieces that the text of the search is cut into, each longer than all before it."""

    def __call__(
        self,
        states: Sequence[PruningState],
        measure: Measure,
        *,
        rung: int | None = None,
        held_out: bool = False,
    ) -> list[float]:
        """A number for each state, the lower the better; infinite where it is none.

        On the pieces up to ``rung``, on all where it is None. ``held_out`` takes the other text,
        on which nothing is searched.
        """

    def ahead(self, states: Sequence[float], doing: str) -> None:
        """So many states are still to be evaluated on each piece, at most; and what begins now."""


@dataclass(frozen=True, slots=True)
class Space:
    """What may differ between the states that a search visits."""

    units: Mapping[str, int]
    """Groups of channels, heads or experts that go at a time, by the unit's name; 0 of blocks."""

    @classmethod
    def of(cls, phases: Sequence[Phase]) -> "Space":
        """Everything that the phases of a method may take."""
        return cls({u.name: phase.size_of(u) or 0 for phase in phases for u in phase.units})


@dataclass(frozen=True, slots=True)
class Given:
    """Where a search begins."""

    states: Sequence[PruningState]
    """From the dense model, or the given start, to the state that the phases ended in."""
    space: Space
    target_percent: float

    @property
    def last(self) -> PruningState:
        """Where the phases ended."""
        return self.states[-1]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    state: PruningState
    history: Sequence[Mapping[str, Json]]
    """One entry for each generation: ``generation``, ``evaluations`` (states that the search has
    asked for so far) and ``best`` (the fitness of the best of them)."""
    more: Mapping[str, Json] = field(default_factory=dict)
    """What else is published of the search, as plain JSON."""


class Search(ABC):
    """Finds a state at the target ratio after the phases of a method were walked."""

    name: str
    """What it is called in files; the criterion of the steps to the state that it finds."""
    measure: Measure
    """What it searches by."""
    start: Path | None = None
    """A ``pruning_config.json`` to begin with, in the place of where the phases end."""

    @abstractmethod
    def identity(self) -> dict[str, Json]:
        """What decides what is found, besides the model, the text and where it starts."""

    @abstractmethod
    def find(self, given: Given, evaluate: Evaluate) -> Found:
        """Search. The same is found again whenever the evaluations are the same."""

    @abstractmethod
    def most_states(self, rungs: int) -> list[float]:
        """States that are evaluated on each of so many pieces of text, at most."""


PIECES = (2048, 16384)
"""Tokens at which a text is cut: what is poor on the first piece need not be read on the next."""


def pieces_of(windows: int, seqlen: int) -> list[range]:
    """The pieces of a text, as ranges of its windows: up to 2k tokens, to 16k tokens, the rest."""
    ends = [min(windows, math.ceil(tokens / seqlen)) for tokens in PIECES] + [windows]
    return [range(a, b) for a, b in zip([0, *ends], ends, strict=False) if a < b]


def plain(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if math.isfinite(value) else None
