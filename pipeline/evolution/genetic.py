"""NSGA-II over the widths of channels and heads (arXiv 2501.09949, section 2.1).

The paper names the algorithm and its two objectives, perplexity and the removed ratio. Population,
generations, mutation, where it starts and how one of the last front is chosen are ours.
"""

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pipeline.evolution.base import (
    Evaluate,
    Found,
    Given,
    Json,
    Measure,
    Search,
    Space,
    plain,
    width_range,
)
from pipeline.evolution.figures import Figures, figures_of, ranked
from pipeline.evolution.moves import moved, resized, with_widths
from pipeline.pruning.shape import BlockKind
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import UNITS

MOST_MOVES = 3
"""Moves at most from a state of the greedy way to one that fills up the first population."""
ETA = 3.0
"""Distribution index of the mutation: most mutated widths change by a few groups."""
NOT_EVALUATED = 1e300
"""The perplexity that a state is told with which is too far from the target to be evaluated."""
FITTED_AT_MOST = 100
"""Groups that a state is brought to the target by."""


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
        bare = _with_full_widths(given.last)
        variables = variables_of(bare, given.space)
        known: dict[tuple[int, ...], tuple[PruningState, float]] = {}
        history: list[dict[str, Json]] = []
        with _quiet_optuna() as optuna:
            study = optuna.create_study(directions=["minimize", "maximize"])
            for first in self._first(given, variables):
                study.enqueue_trial({each.name: each.gone(first) for each in variables})
            for generation in range(self.generations):
                left = self.population * (self.generations - generation)
                evaluate.ahead(
                    [float(left)] * evaluate.rungs,
                    f"generation {generation + 1} of {self.generations}",
                )
                study.sampler = self._sampler(optuna, generation)
                asked = [study.ask() for _ in range(self.population)]
                vectors = [
                    tuple(trial.suggest_int(v.name, 0, v.most) for v in variables)
                    for trial in asked
                ]
                states = {vector: _state_of(bare, variables, vector) for vector in vectors}
                new = {
                    vector: state
                    for vector, state in states.items()
                    if vector not in known and not self._is_far(state, given)
                }
                scores = evaluate(list(new.values()), self.measure)
                for (vector, state), score in zip(new.items(), scores, strict=True):
                    known[vector] = state, score
                for trial, vector in zip(asked, vectors, strict=True):
                    state = states[vector]
                    score = known[vector][1] if vector in known else math.inf
                    trial.set_constraint("ratio", self._violation(state, given))
                    study.tell(trial, (min(score, NOT_EVALUATED), state.ratio_percent))
                at_target = [s for each, s in known.values() if _reaches(each, given)]
                best = min(at_target, default=math.inf)
                entry = {"generation": generation + 1, "evaluations": len(known)}
                history.append({**entry, "best": plain(best)})
        front = _front(list(known.values()))
        evaluate.ahead([0.0] * evaluate.rungs, "ranking the last front on other text")
        finalists = self._finalists(given, variables, front, evaluate)
        shown = [{**each.to_json(), "ranks": ranks} for ranks, each in finalists]
        _, chosen = finalists[0]
        points = [{"ratio_percent": s.ratio_percent, "perplexity": ppl} for s, ppl in front]
        return Found(chosen.state, history, {"front": points, "finalists": shown})

    def _first(self, given: Given, variables: Sequence[Variable]) -> list[PruningState]:
        """The first population: states of the greedy way near the target, and moves from them."""
        removed = given.last.removed_attn, given.last.removed_mlp
        own = [
            state
            for state in reversed(given.states)
            if (state.removed_attn, state.removed_mlp) == removed and not self._is_far(state, given)
        ][: self.population]
        draw = random.Random(f"{self.name} {self.seed}")  # noqa: S311
        widths = Space({each.unit: each.size for each in variables})
        while len(own) < self.population:
            state: PruningState = draw.choice(own)
            for _ in range(draw.randint(1, MOST_MOVES)):
                state = moved(state, widths, draw) or state
            own.append(state)
        return own

    def _sampler(self, optuna: Any, generation: int) -> Any:
        """A new one for each generation, so that the same states lead to the same proposals."""
        seed = random.Random(f"{self.name} {self.seed} {generation}").getrandbits(32)  # noqa: S311
        return optuna.samplers.NSGAIISampler(
            population_size=self.population,
            mutation=optuna.samplers.nsgaii.PolynomialMutation(ETA),
            mutation_prob=self.mutation,
            seed=seed,
        )

    def _violation(self, state: PruningState, given: Given) -> float:
        """How much farther from the target a state is than it may be; 0 or less where it counts."""
        target = given.target_percent
        most = max(self.near, given.last.ratio_percent - target)  # large groups overshoot
        return abs(state.ratio_percent - target) - most

    def _is_far(self, state: PruningState, given: Given) -> bool:
        return self._violation(state, given) > 0

    def _finalists(
        self,
        given: Given,
        variables: Sequence[Variable],
        front: Sequence[tuple[PruningState, float]],
        evaluate: Evaluate,
    ) -> list[tuple[int, Figures]]:
        """Those of the front nearest to the target, brought to it, and the greedy end; best first.

        They are ranked by perplexity and by divergence on the held-out text: the lowest sum of both
        ranks comes first.
        """
        near = sorted(front, key=lambda each: abs(each[0].ratio_percent - given.target_percent))
        states = [given.last, *(state for state, _ in near[: self.finalists])]
        fitted = (_fitted(each, given, variables, evaluate) for each in states)
        different = {str(state.live_identity()): state for state in fitted}
        return ranked(figures_of(list(different.values()), evaluate))


def _fitted(
    state: PruningState, given: Given, variables: Sequence[Variable], evaluate: Evaluate
) -> PruningState:
    """The state at the target: groups go until it is reached, and come back while it still is.

    Each time the one without which, or with which, perplexity is lowest on the first piece of text.
    """
    for _ in range(FITTED_AT_MOST):
        if _reaches(state, given):
            near = [each for each in _neighbours(state, variables, 1) if _reaches(each, given)]
        else:
            near = _neighbours(state, variables, -1)
        if not near:
            break
        scores = evaluate(near, "perplexity", rung=0)
        state = near[min(range(len(near)), key=scores.__getitem__)]
    return state


def _neighbours(
    state: PruningState, variables: Sequence[Variable], groups: int
) -> list[PruningState]:
    """States with a group more, or less, in one block."""
    return [
        resized(state, each.kind, each.layer, groups * each.size)
        for each in variables
        if 0 <= each.gone(state) - groups <= each.most
    ]


def _reaches(state: PruningState, given: Given) -> bool:
    return state.ratio_percent >= given.target_percent


def _with_full_widths(state: PruningState) -> PruningState:
    shape = state.shape
    return replace(state, attn_widths=shape.widths("attn"), mlp_widths=shape.widths("mlp"))


def _state_of(
    bare: PruningState, variables: Sequence[Variable], vector: Sequence[int]
) -> PruningState:
    widths = {kind: list(bare.widths(kind)) for kind in ("attn", "mlp")}
    for variable, gone in zip(variables, vector, strict=True):
        widths[variable.kind][variable.layer] = variable.full - gone * variable.size
    return with_widths(with_widths(bare, "attn", widths["attn"]), "mlp", widths["mlp"])


def _front(
    evaluated: Sequence[tuple[PruningState, float]],
) -> list[tuple[PruningState, float]]:
    """Those that no other one beats in both objectives, from the lowest ratio on."""
    front: list[tuple[PruningState, float]] = []
    best = math.inf
    for state, score in sorted(evaluated, key=lambda each: (-each[0].ratio_percent, each[1])):
        if score < best:
            front.append((state, score))
            best = score
    return front[::-1]


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Optuna without its log, and without its warnings of what may change in later versions."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)
