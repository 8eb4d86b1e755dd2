"""NSGA-II over the widths of channels and heads (arXiv 2501.09949, section 2.1).

The paper names the algorithm and its two objectives, perplexity and the removed ratio. Population,
generations, mutation, where it starts and how one of the last front is chosen are ours.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evolution.base import (
    Evaluate,
    Found,
    Given,
    Measure,
    Search,
    Space,
    plain,
)
from pipeline.evolution.figures import Figures, figures_of, ranked
from pipeline.evolution.moves import moved, resized, width_range
from pipeline.evolution.quiet import quiet_optuna
from pipeline.files import Json
from pipeline.pruning.shape import BLOCK_KINDS, BlockKind
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import UNITS

MOST_MOVES = 3
"""Moves at most from a state of the greedy way to one that fills up the first population."""
ETA = 3.0
"""Distribution index of the mutation: most mutated widths change by a few groups."""
NOT_EVALUATED = 1e300
"""The perplexity that a state is told with which is too far from the target to be evaluated."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The width of one block, in groups that are gone."""

    unit: str
    layer: int
    size: int
    full: int
    most: int
    """Groups that may go."""

    @property
    def name(self) -> str:
        """What Optuna calls it."""
        return f"{self.unit}.{self.layer}"

    @property
    def kind(self) -> BlockKind:
        """Attention or MLP."""
        (kind,) = UNITS[self.unit].kinds
        return kind

    def gone(self, state: PruningState) -> int:
        """Groups that a state lacks."""
        return (self.full - state.widths(self.kind)[self.layer]) // self.size


def variables_of(state: PruningState, space: Space) -> list[Variable]:
    """Everything that may become narrower in a state, from the input to the output."""
    variables = []
    for layer in range(len(state.shape.layers)):
        for name, size in space.units.items():
            unit = UNITS[name]
            if unit.is_whole or state.shape.why_barred(name):
                continue
            least, full = width_range(state, unit, size, layer)
            if full > least:
                most = (full - least) // size
                variables.append(Variable(name, layer, size, full, most))
    return variables


@dataclass(frozen=True)
class Genetic(Search):
    """NSGA-II by perplexity and ratio; of the last front one is chosen by other text."""

    population: int
    """States of a generation."""
    generations: int
    mutation: float | None
    """The chance of each width to be mutated; None is one over their number."""
    near: float
    """Only states whose ratio is within so many percent points of the target count."""
    finalists: int
    """States of the last front that are ranked again."""
    seed: int
    measure: Measure = "perplexity"
    name = "nsga2"

    def identity(self) -> dict[str, Json]:
        """All settings."""
        return {
            "search": self.name,
            "population": self.population,
            "generations": self.generations,
            "mutation": self.mutation,
            "near": self.near,
            "finalists": self.finalists,
            "seed": self.seed,
        }

    def most_states(self, rungs: int) -> list[float]:
        """Of all generations."""
        return [float(self.population * self.generations)] * rungs

    def find(self, given: Given, evaluate: Evaluate) -> Found:
        """Start from the states of the greedy way that lie near the target."""
        visited = _Visited(given, evaluate, self.near)
        history: list[dict[str, Json]] = []
        with quiet_optuna() as optuna:
            study = optuna.create_study(directions=["minimize", "maximize"])
            for first in self._first(visited):
                study.enqueue_trial({each.name: each.gone(first) for each in visited.variables})
            for generation in range(self.generations):
                left = float(self.population * (self.generations - generation))
                doing = f"generation {generation + 1} of {self.generations}"
                evaluate.ahead([left] * evaluate.rungs, doing)
                study.sampler = self._sampler(optuna, generation)
                self._generation(study, visited)
                told = {"generation": generation + 1, "evaluations": len(visited.known)}
                history.append({**told, "best": plain(visited.best_at_target)})
        front = visited.front()
        evaluate.ahead([0.0] * evaluate.rungs, "ranking the last front on other text")
        finalists = visited.ranked_again(front, self.finalists)
        _, chosen = finalists[0]
        shown = {
            "front": [{"ratio_percent": s.ratio_percent, "perplexity": ppl} for s, ppl in front],
            "finalists": [{**each.to_json(), "ranks": ranks} for ranks, each in finalists],
        }
        return Found(chosen.state, history, shown)

    def _first(self, visited: "_Visited") -> list[PruningState]:
        """The first population: states of the greedy way near the target, and moves from them."""
        own = visited.greedy[: self.population]
        draw = random.Random(f"{self.name} {self.seed}")  # noqa: S311
        widths = Space({each.unit: each.size for each in visited.variables})
        while len(own) < self.population:
            state: PruningState = draw.choice(own)
            for _ in range(draw.randint(1, MOST_MOVES)):
                state = moved(state, widths, draw) or state
            own.append(state)
        return own

    def _generation(self, study: Any, visited: "_Visited") -> None:
        """Ask for a population before any of it is told, so that all have the same parents."""
        trials = [study.ask() for _ in range(self.population)]
        vectors = [
            tuple(trial.suggest_int(each.name, 0, each.most) for each in visited.variables)
            for trial in trials
        ]
        in_study = study.get_trials(deepcopy=False)
        for trial in trials:  # those that were enqueued have no generation yet: nothing was drawn
            study.sampler.get_trial_generation(study, in_study[trial.number])
        visited.evaluate_all(vectors)
        for trial, vector in zip(trials, vectors, strict=True):
            state, score = visited.of(vector)
            trial.set_constraint("ratio", visited.violation(state))
            study.tell(trial, (min(score, NOT_EVALUATED), state.ratio_percent))

    def _sampler(self, optuna: Any, generation: int) -> Any:
        """A new one for each generation, so that the same states lead to the same proposals."""
        seed = random.Random(f"{self.name} {self.seed} {generation}").getrandbits(32)  # noqa: S311
        return optuna.samplers.NSGAIISampler(
            population_size=self.population,
            mutation=optuna.samplers.nsgaii.PolynomialMutation(ETA),
            mutation_prob=self.mutation,
            seed=seed,
        )


Vector = tuple[int, ...]
"""Groups that are gone, by variable."""


class _Visited:
    """The states that a search has come to, and what is known of them."""

    def __init__(self, given: Given, evaluate: Evaluate, near: float) -> None:
        self.given, self.evaluate = given, evaluate
        overshoot = given.last.ratio_percent - given.target_percent  # of large groups
        self._near = max(near, overshoot)
        full = {kind: given.last.shape.widths(kind) for kind in BLOCK_KINDS}
        self._bare = _with_all_widths(given.last, full)
        self.variables = variables_of(self._bare, given.space)
        self.known: dict[Vector, tuple[PruningState, float]] = {}
        """States that were evaluated, with their perplexities."""

    @property
    def greedy(self) -> list[PruningState]:
        """States of the greedy way that count, the last one first."""
        removed = self.given.last.removed_attn, self.given.last.removed_mlp
        return [
            state
            for state in reversed(self.given.states)
            if (state.removed_attn, state.removed_mlp) == removed and self.violation(state) <= 0
        ]

    def violation(self, state: PruningState) -> float:
        """How much farther from the target a state is than it may be; 0 or less where it counts."""
        return abs(state.ratio_percent - self.given.target_percent) - self._near

    def evaluate_all(self, vectors: Sequence[Vector]) -> None:
        """Evaluate the states that are new and count."""
        states = {vector: self._state_of(vector) for vector in vectors}
        new = [v for v, s in states.items() if v not in self.known and self.violation(s) <= 0]
        scores = self.evaluate([states[vector] for vector in new], "perplexity")
        for vector, score in zip(new, scores, strict=True):
            self.known[vector] = states[vector], score

    def of(self, vector: Vector) -> tuple[PruningState, float]:
        """A state and its perplexity; infinite where it was not evaluated."""
        return self.known.get(vector) or (self._state_of(vector), math.inf)

    @property
    def best_at_target(self) -> float:
        """The lowest perplexity of those that reach the target."""
        return min(
            (score for s, score in self.known.values() if self._reaches(s)), default=math.inf
        )

    def front(self) -> list[tuple[PruningState, float]]:
        """Those that no other one beats in both objectives, from the lowest ratio on."""
        front: list[tuple[PruningState, float]] = []
        best = math.inf
        in_order = sorted(self.known.values(), key=lambda each: (-each[0].ratio_percent, each[1]))
        for state, score in in_order:
            if score < best:
                front.append((state, score))
                best = score
        return front[::-1]

    def ranked_again(
        self, front: Sequence[tuple[PruningState, float]], most: int
    ) -> list[tuple[int, Figures]]:
        """Those of a front nearest to the target, brought to it, and the greedy end; best first.

        They are ranked by perplexity and by divergence on the held-out text: the lowest sum of both
        ranks comes first.
        """
        target = self.given.target_percent
        near = sorted(front, key=lambda each: abs(each[0].ratio_percent - target))
        states = [self.given.last, *(state for state, _ in near[:most])]
        fitted = {str(each.live_identity()): each for each in map(self._fitted, states)}
        return ranked(figures_of(list(fitted.values()), self.evaluate))

    def _fitted(self, state: PruningState) -> PruningState:
        """The state at the target: groups go until it is reached, and come back while it still is.

        Each time the one without or with which perplexity is lowest on the first piece of text.
        """
        while not self._reaches(state):
            state = self._best(self._neighbours(state, -1))
        while near := [each for each in self._neighbours(state, 1) if self._reaches(each)]:
            state = self._best(near)
        return state

    def _best(self, states: Sequence[PruningState]) -> PruningState:
        scores = self.evaluate(states, "perplexity", rung=0)
        return states[min(range(len(states)), key=scores.__getitem__)]

    def _neighbours(self, state: PruningState, groups: int) -> list[PruningState]:
        """States with a group more, or less, in one block."""
        return [
            resized(state, each.kind, each.layer, groups * each.size)
            for each in self.variables
            if 0 <= each.gone(state) - groups <= each.most
        ]

    def _reaches(self, state: PruningState) -> bool:
        return state.ratio_percent >= self.given.target_percent

    def _state_of(self, vector: Vector) -> PruningState:
        widths = {kind: list(self._bare.widths(kind)) for kind in BLOCK_KINDS}
        for variable, gone in zip(self.variables, vector, strict=True):
            widths[variable.kind][variable.layer] = variable.full - gone * variable.size
        return _with_all_widths(self._bare, widths)


def _with_all_widths(
    state: PruningState, widths: Mapping[BlockKind, Sequence[int]]
) -> PruningState:
    for kind in BLOCK_KINDS:
        state = state.with_widths(kind, widths[kind])
    return state
