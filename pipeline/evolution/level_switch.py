"""(1 + lambda) search by moves that keep the ratio (EvoPress, arXiv 2410.14649).

The moves and the elimination on ever more text are those of EvoPress and Tyr-the-Pruner
(AMD-AGI/Tyr-the-Pruner); how many of each there are is ours.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evolution.base import Evaluate, Found, Given, Measure, Search, Space, plain
from pipeline.evolution.moves import moved
from pipeline.files import Json
from pipeline.pruning.state import PruningState

MOST_MOVES = 3
"""Moves of one child at most: the lower of two numbers from 1 on, as in EvoPress."""
TRIES = 20
"""Times that a child is drawn anew which is there already."""


@dataclass(frozen=True)
class LevelSwitch(Search):
    """The best state so far has children; the best of them takes its place where it is better."""

    measure: Measure
    generations: int
    offspring: int
    """Children of a generation."""
    survivors: Sequence[int]
    """How many of them are evaluated on more text, after each piece but the last one."""
    seed: int
    start: Path | None = None
    name = "level_switch"

    def identity(self) -> dict[str, Json]:
        """All but the start, which a path does not identify."""
        return {
            "search": self.name,
            "measure": self.measure,
            "generations": self.generations,
            "offspring": self.offspring,
            "survivors": list(self.survivors),
            "seed": self.seed,
        }

    def most_states(self, rungs: int) -> list[float]:
        """Of all generations, and the start."""
        return [1.0 + self.generations * count for count in self._evaluated(rungs)]

    def _evaluated(self, rungs: int) -> Sequence[int]:
        """Children of a generation that are evaluated on each of so many pieces of text."""
        return [self.offspring, *self.survivors][:rungs]

    def find(self, given: Given, evaluate: Evaluate) -> Found:
        """From where the phases ended, or the given start."""
        best = given.last
        rungs = evaluate.rungs
        evaluate.ahead(self.most_states(rungs), "the start of the search")
        (fitness,) = evaluate([best], self.measure)
        lowest, asked = math.inf, 1
        history = [{"generation": 0, "evaluations": asked, "best": plain(fitness)}]
        for generation in range(1, self.generations + 1):
            left = self.generations - generation + 1
            ahead = [left * count for count in self._evaluated(rungs)]
            evaluate.ahead(ahead, f"generation {generation} of {self.generations}")
            children = self._children(best, given.space, generation)
            asked += len(children)
            for rung, kept in enumerate([*self._evaluated(rungs)[1:], 1]):
                scores = evaluate(children, self.measure, rung=rung)
                ranked = sorted(range(len(children)), key=scores.__getitem__)
                children = [children[row] for row in ranked[:kept]]
                lowest = min(scores, default=math.inf)
            if lowest < fitness:
                (best,), fitness = children, lowest
            entry = {"generation": generation, "evaluations": asked, "best": plain(fitness)}
            history.append(entry)
        return Found(best, history)

    def _children(self, parent: PruningState, space: Space, generation: int) -> list[PruningState]:
        """Different states, none of them the parent; fewer where there are not so many."""
        draw = random.Random(f"{self.name} {self.seed} {generation}")  # noqa: S311
        children: dict[str, PruningState] = {}
        known = {str(parent.live_identity())}
        for _ in range(TRIES * self.offspring):
            if len(children) == self.offspring:
                break
            child: PruningState | None = parent
            for _ in range(min(draw.randint(1, MOST_MOVES), draw.randint(1, MOST_MOVES))):
                child = child and moved(child, space, draw)
            if child and (key := str(child.live_identity())) not in known:
                children[key] = child
                known.add(key)
        return list(children.values())
