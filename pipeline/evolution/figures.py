"""How good a state is on the text that was searched on, and on other text."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evolution.base import Evaluate, plain
from pipeline.files import Json
from pipeline.pruning.state import PruningState


@dataclass(frozen=True, slots=True)
class Figures:
    """What is shown of a state."""

    state: PruningState
    perplexity: float
    """On the text of the search."""
    held_out_perplexity: float
    held_out_divergence: float
    """KL(dense || state), nats a token."""

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; None where a number is not finite."""
        return {
            "ratio_percent": self.state.ratio_percent,
            "perplexity": plain(self.perplexity),
            "held_out_perplexity": plain(self.held_out_perplexity),
            "held_out_divergence": plain(self.held_out_divergence),
        }


def figures_of(states: Sequence[PruningState], evaluate: Evaluate) -> list[Figures]:
    """Of each state."""
    measured = (
        evaluate(states, "perplexity"),
        evaluate(states, "perplexity", held_out=True),
        evaluate(states, "divergence", held_out=True),
    )
    return [Figures(*row) for row in zip(states, *measured, strict=True)]


def ranked(figures: Sequence[Figures]) -> list[tuple[int, Figures]]:
    """By what they are on held-out text, the best first, each with the sum of its ranks.

    The ranks are those by perplexity and by divergence, from 0.
    """
    ranks = [0] * len(figures)
    for values in (
        [each.held_out_perplexity for each in figures],
        [each.held_out_divergence for each in figures],
    ):
        for rank, row in enumerate(sorted(range(len(figures)), key=values.__getitem__)):
            ranks[row] += rank
    rows = list(zip(ranks, figures, strict=True))
    return sorted(rows, key=lambda row: (row[0], row[1].held_out_perplexity))
