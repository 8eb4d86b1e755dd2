"""Trajectories of a run: what identifies them, and the model and scorer that extend them."""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from typing import Any

from pipeline.criteria.base import CALIBRATION, Material
from pipeline.methods import method_of
from pipeline.pruning.choice import Scorer
from pipeline.pruning.passes import passes
from pipeline.pruning.phases import Phase
from pipeline.pruning.records import StepRecord
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.pruning.trajectory import Trajectory
from pipeline.pruning.units import Candidate
from pipeline.pruning.walk import walk
from pipeline.scoring.perplexity import Windows
from pipeline.settings.core import Config
from pipeline.stages import order
from pipeline.stages.base import Inputs
from pipeline.stages.shared import identity
from pipeline.stages.shared.calibration import Calibration
from pipeline.stages.shared.material import supplied
from pipeline.stages.shared.parts import Part
from pipeline.stages.shared.phases import criterion_of, needs_windows, windows_of


class Search:
    """Follows trajectories under one configuration, and extends them where steps are missing."""

    def __init__(self, config: Config, inputs: Inputs) -> None:
        self.config = config
        self.inputs = inputs
        self.criterion = criterion_of(config)
        self._warned = False

    def windows(self, phase: Phase) -> Windows:
        """The calibration windows that a phase is scored on."""
        return self._calibration.of(phase.windows)

    def walk(
        self, phase: Phase, start: PruningState, steps_before: int = 0
    ) -> Generator[StepRecord, None, None]:
        """Steps of a phase from ``start``, each computed when it is asked for.

        ``steps_before`` are those of the run so far.
        """
        trajectory = self.inputs.trajectories.open(self.identity(phase, start))
        this_walk = _Walk(self, phase, trajectory)
        made_by = self.inputs.made_by
        steps = walk(trajectory, phase, start, steps_before, this_walk.decide, made_by, this_walk)
        for step in steps:
            for candidate in step.decision.refused:
                self.inputs.listener.on_warning(
                    f"{candidate.unit.name} of layer {candidate.layer} was refused: without it the "
                    f"{self.criterion.name} is not a finite number"
                )
            yield step

    def identity(self, phase: Phase, start: PruningState) -> dict[str, Any]:
        """Everything that decides a trajectory's steps, and nothing else."""
        config, weights = self.config, self.inputs.weights
        calibration = ""
        if needs_windows(config):
            calibration = self._calibration.hashes[windows_of(config, phase)]
        return identity.of_trajectory(config, weights, calibration, self._order, phase, start)

    def work(
        self,
        phase: Phase,
        state: PruningState,
        candidates: Sequence[Candidate],
        from_layer: float = 0,
    ) -> dict[str, float]:
        """What scoring candidates of a step takes, by kind of work, as listeners are told it.

        ``from_layer`` is where the last step of the phase took something; 0 for the first.
        """
        return {_kind(phase): self._tokens(phase) * passes(state, candidates, from_layer)}

    def scorer(self, phase: Phase, on_progress: Callable[[float], None]) -> Scorer:
        """Scores the steps of one walk; ``on_progress`` as ``Material`` has it."""
        given = supplied(self.criterion.needs, self.inputs)
        if CALIBRATION in self.criterion.needs:
            given[CALIBRATION] = self.windows(phase)
        material = Material(self.inputs.live, given, on_progress, self.inputs.leader)
        return self.criterion.scorer(self.config, material)

    def warn_of_other_versions(self, made_by: Mapping[str, Any]) -> None:
        """Say once where steps on disk were made under other versions than these."""
        others = {
            name: (value, made_by[name])
            for name, value in self.inputs.made_by.items()
            if made_by.get(name, value) != value
        }
        if others and not self._warned:
            self._warned = True
            changes = ", ".join(
                f"{name} {then} then, {now} now" for name, (now, then) in others.items()
            )
            self.inputs.listener.on_warning(
                f"steps found on disk were made under others: {changes}"
            )

    def _tokens(self, phase: Phase) -> int:
        """Tokens of the windows that a candidate is scored on; 1 where it needs none."""
        needs_text = CALIBRATION in self.criterion.needs
        return self.windows(phase).ids.numel() if needs_text else 1

    @cached_property
    def _order(self) -> str | None:
        folder = self.inputs.results.get(order.STAGE.name)
        return order.order_in(folder).digest if folder else None

    @cached_property
    def _calibration(self) -> Calibration:
        return Calibration.read(self.inputs.results["calibrate"])


class _Walk:
    """One walk: its scorer, which is opened when a step is missing, and what is heard of it."""

    def __init__(self, search: Search, phase: Phase, trajectory: Trajectory) -> None:
        self.search, self.phase, self.trajectory = search, phase, trajectory
        self.choice = method_of(search.config.prune).choice
        self.part = Part(lambda _: None)

    def decide(
        self,
        index: int,
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,
    ) -> Step:
        listener = self.search.inputs.listener
        before = {scored.candidate for scored in last.scored} if last else ()
        new = self.choice.unscored(candidates, before)
        kind = _kind(self.phase)
        from_layer = last.chosen.layer if last else 0
        tokens = self.search.work(self.phase, state, new, from_layer)[kind]
        listener.on_doing(kind)
        self.part = Part(lambda share: listener.on_progress(kind, share * tokens))
        step = self.choice.step(self._scorer, index, state, candidates, last)
        self.part.end()
        return step

    def on_wait(self, holder: str) -> None:
        dimension = self.phase.dimension
        self.search.inputs.listener.on_note(f"waiting: {holder} computes {dimension}")

    def on_computed(self, index: int, step: Step) -> None:
        self.search.inputs.listener.on_computed((self.trajectory.key, index), step)

    def on_damaged(self, text: str) -> None:
        self.search.inputs.listener.on_warning(text)

    def on_read(self, index: int) -> None:
        self.search.warn_of_other_versions(self.trajectory.made_by(index))

    @cached_property
    def _scorer(self) -> Scorer:
        return self.search.scorer(self.phase, self._progress)

    def _progress(self, share: float) -> None:
        self.part.add(share)


def _kind(phase: Phase) -> str:
    return f"scoring {phase.dimension.replace('_', ' ')}"
