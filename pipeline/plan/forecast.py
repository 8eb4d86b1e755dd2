"""What runs would have to score, counted without a model: steps on disk, and likely ones after."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.criteria.base import CALIBRATION
from pipeline.errors import DamagedError
from pipeline.evolution.base import pieces_of
from pipeline.methods import method_of
from pipeline.plan.run import Run
from pipeline.pruning.passes import passes
from pipeline.pruning.phases import Phase
from pipeline.pruning.play import play
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.pruning.trajectory import Trajectory
from pipeline.pruning.units import Candidate
from pipeline.screen import duration
from pipeline.stages import calibrate, order, score
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import criterion_of, in_common_order, phases_of, windows_of

LIKELY_PIECES = (0.06, 0.44, 0.5)
"""Shares that the pieces of a text have which is not read yet: of 32k tokens."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """The candidates of one step."""

    key: tuple[str, int]
    """The same for the same step of the same search from the same state."""
    dimension: str
    candidates: int
    """Those that the step scores."""
    is_done: bool
    is_estimate: bool
    """Whether steps before it had to be guessed."""
    passes: float = 0.0
    """Forward passes of the dense model over its calibration text that it takes as long as, about;
    none where candidates are scored without the model."""


@dataclass(frozen=True, slots=True)
class Searching:
    """A search after the phases of a run, at most."""

    states: float
    """States that it evaluates."""
    passes: float
    """Forward passes of the dense model over the calibration text that it takes as long as."""


@dataclass
class Forecast:
    """Candidate evaluations of several runs together."""

    searches: dict[str, Searching] = field(default_factory=dict)
    """Those that are not done, by the key of the stage that searches."""
    scorings: dict[tuple[str, int], Scoring] = field(default_factory=dict)
    alone: int = 0
    """Evaluations if no run shared anything, done ones included."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Measured time of one evaluation."""
    damaged: dict[Path, DamagedError] = field(default_factory=dict)
    """Steps on disk that will be scored again."""

    @classmethod
    def of(cls, runs: Iterable[Run]) -> "Forecast":
        """Count the runs' evaluations, each step once."""
        forecast = cls()
        times: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for run in runs:
            if run.plan.main:
                counted = _Counted(run, times)
                own = {scoring.key: scoring for scoring in counted.scorings()}
                forecast.damaged |= {damage.path: damage for damage in counted.damaged}
                forecast.alone += sum(scoring.candidates for scoring in own.values())
                forecast.scorings |= own
                forecast.searches |= counted.searches()
        for dimension, took in times.items():
            scored = sum(count for _, count in took)
            forecast.seconds[dimension] = sum(seconds for seconds, _ in took) / scored
        return forecast

    def evaluations(self, **wanted: bool) -> int:
        """Those with ``is_done`` or ``is_estimate`` as given."""
        return sum(
            scoring.candidates
            for scoring in self.scorings.values()
            if all(getattr(scoring, name) == value for name, value in wanted.items())
        )

    @property
    def seconds_to_come(self) -> float | None:
        """Time of what is not done, from measured steps; None where some dimension has none."""
        to_come = [scoring for scoring in self.scorings.values() if not scoring.is_done]
        if any(scoring.dimension not in self.seconds for scoring in to_come):
            return None
        return sum(scoring.candidates * self.seconds[scoring.dimension] for scoring in to_come)

    @property
    def passes_to_come(self) -> list[float]:
        """Forward passes that steps take as long as that are not done."""
        return [scoring.passes for scoring in self.scorings.values() if not scoring.is_done]

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        seconds = self.seconds_to_come
        return {
            "candidate_evaluations": self.evaluations(),
            "done": self.evaluations(is_done=True),
            "new": self.evaluations(is_done=False),
            "new_estimated": self.evaluations(is_done=False, is_estimate=True),
            "without_sharing": self.alone,
            "scoring_seconds": None if seconds is None else round(seconds, 1),
            "forward_passes": round(sum(self.passes_to_come), 1),
            **self._searches_json(),
        }

    def _searches_json(self) -> dict[str, Any]:
        """Nothing where no run searches."""
        if not self.searches:
            return {}
        return {
            "states_of_searches": round(sum(each.states for each in self.searches.values())),
            "passes_of_searches": round(sum(each.passes for each in self.searches.values()), 1),
        }

    def in_words(self) -> str:
        """Two lines for people, and one more where runs search."""
        new, guessed = (
            self.evaluations(is_done=False),
            self.evaluations(is_done=False, is_estimate=True),
        )
        mark = "about " if guessed else ""
        seconds = self.seconds_to_come
        ahead = self.passes_to_come
        if not new:
            took = "nothing to score"
        elif not sum(ahead):
            took = "no candidate is run through the model"
        elif seconds is None:
            took = (
                "scoring time unknown: no such step was measured yet; as long as about "
                f"{sum(ahead):,.0f} forward passes over the calibration text, {max(ahead):,.0f} "
                "of them in the longest step"
            )
        else:
            took = f"about {duration(seconds)} of scoring, by the steps measured so far"
        estimated = f" ({guessed:,} of them estimated)" if guessed else ""
        return (
            f"candidate evaluations: {mark}{new:,} new{estimated}, "
            f"{self.evaluations(is_done=True):,} done; "
            f"without sharing {mark}{self.alone:,} in all\n{took}{self._searches_in_words()}"
        )

    def _searches_in_words(self) -> str:
        if not self.searches:
            return ""
        states = sum(each.states for each in self.searches.values())
        ahead = sum(each.passes for each in self.searches.values())
        return (
            f"\nsearches: at most {states:,.0f} states evaluated, those on disk counted; as long "
            f"as about {ahead:,.0f} forward passes over the calibration text"
        )


class _Counted:
    """One run's steps."""

    def __init__(self, run: Run, times: dict[str, list[tuple[float, int]]]) -> None:
        self.run, self.config, self.times = run, run.config, times
        calibration = run.plan.by_name.get(calibrate.STAGE.name)
        self.calibration = calibration.key if calibration else ""
        self.windows = run.store.finished(calibration) if calibration else None
        self.order = _order_of(run)
        self.dense = PruningState.dense(run.source.shape)
        self.method = method_of(self.config.prune)
        self.phases = phases_of(self.config, run.source)
        self.damaged: list[DamagedError] = []

    def scorings(self) -> Iterator[Scoring]:
        """Of the sensitivity, and of every step down to the target."""
        if score.STAGE.name in self.run.plan.by_name:
            for phase in in_common_order(self.phases):
                yield from self._first(phase)
        state, guessed = self.dense, False
        for phase in self.phases:
            trajectory = self._trajectory(phase, state)
            read = None if guessed else partial(self._read, trajectory, phase)
            steps = play(phase, state, self.method.choice, read=read)
            for index, step in enumerate(steps):
                is_done = step.decided is not None
                took = self._passes(step.state, step.scored, step.from_layer)
                key, count = (trajectory.key, index), len(step.scored)
                yield Scoring(key, phase.dimension, count, is_done, guessed, took)
                state, guessed = step.after, guessed or not is_done

    def searches(self) -> dict[str, Searching]:
        """The search of the run, unless it is done or there is none."""
        search, main = self.method.search(self.config.prune), self.run.plan.main
        if search is None or main is None or self.run.store.finished(main) is not None:
            return {}
        shares = list(LIKELY_PIECES)
        if self.windows:
            block = self.windows["block"]
            pieces = pieces_of(block["windows"], block["seqlen"])
            shares = [len(piece) / block["windows"] for piece in pieces]
        states = search.most_states(len(shares))
        took = sum(count * share for count, share in zip(states, shares, strict=True))
        return {main.key: Searching(states[0], took)}

    def _first(self, phase: Phase) -> Iterator[Scoring]:
        if candidates := phase.candidates(self.dense):
            trajectory = self._trajectory(phase, self.dense)
            is_done = self._read(trajectory, phase, 0, candidates) is not None
            key, took = (trajectory.key, 0), self._passes(self.dense, candidates)
            yield Scoring(key, phase.dimension, len(candidates), is_done, False, took)

    def _trajectory(self, phase: Phase, start: PruningState) -> Trajectory:
        """The trajectory; before calibration, one without steps that has the same name for all."""
        calibration = self.calibration
        if self.windows:
            calibration = self.windows[windows_of(self.config, phase)]["sha256"]
        wanted = identity.of_trajectory(
            self.config, self.run.plan.weights, calibration, self.order, phase, start
        )
        return self.run.store.trajectories.find(wanted)

    def _passes(
        self, state: PruningState, candidates: Sequence[Candidate], from_layer: float = 0
    ) -> float:
        needs_model = CALIBRATION in criterion_of(self.config).needs
        return passes(state, candidates, from_layer) if needs_model else 0.0

    def _read(
        self, trajectory: Trajectory, phase: Phase, index: int, candidates: Sequence[Candidate]
    ) -> Step | None:
        """A step that is on disk; its time is noted. A damaged one will be scored again."""
        try:
            step = trajectory.read(index, candidates)
        except DamagedError as damage:
            self.damaged.append(damage)
            return None
        if step and step.evaluations and (took := trajectory.made_by(index).get("seconds")):
            self.times[phase.dimension].append((took, step.evaluations))
        return step


def _order_of(run: Run) -> str | None:
    """What stands for a stored order of channels; before it is made, the same for all runs."""
    planned = run.plan.by_name.get(order.STAGE.name)
    if planned is None:
        return None
    made = run.store.finished(planned)
    return str(made["digest"]) if made else planned.key
