"""Trajectories of a run: what identifies them, and the model and scorer that extend them."""

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from pipeline.pruning.greedy import Taken, walk
from pipeline.pruning.state import Candidate, Dimension, PruningState
from pipeline.pruning.trajectory import Step
from pipeline.scoring.strategy import strategy
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.shared import identity
from pipeline.stages.shared.calibration import Calibration
from pipeline.stages.shared.phases import group_size_of


class Search:
    """Follows trajectories under one configuration, and extends them where steps are missing."""

    def __init__(self, config: Config, inputs: Inputs) -> None:
        self.config = config
        self.inputs = inputs
        self.calibration = Calibration.read(inputs.results["calibrate"])
        self._strategy = strategy(
            inputs.live,
            config.model.device,
            config.prune.search,
            config.scoring.precision,
            config.scoring.memory_fraction,
            config.prune.audit_every,
        )
        self._warned = False

    def walk(self, dimension: Dimension, start: PruningState) -> Generator[Taken, None, None]:
        """Steps of ``dimension`` from ``start``, each computed when it is asked for."""
        trajectory = self.inputs.trajectories.open(self.identity(dimension, start))
        steps = walk(
            trajectory,
            start,
            dimension,
            group_size_of(self.config, dimension) or 0,
            partial(self._decide, dimension),
            self.inputs.made_by,
            lambda holder: self.inputs.listener.on_note(f"waiting: {holder} computes {dimension}"),
        )
        for taken in steps:
            if taken.new:
                self.inputs.listener.on_computed(taken.source, taken.step)
            else:
                self._warn_of_other_versions(trajectory.made_by(taken.source[1]))
            for candidate in taken.step.refused:
                self.inputs.listener.on_warning(
                    f"{candidate.unit} of layer {candidate.layer} was refused: without it the "
                    "perplexity is not a finite number"
                )
            yield taken

    def identity(self, dimension: Dimension, start: PruningState) -> dict[str, Any]:
        """Everything that decides a trajectory's steps, and nothing else."""
        calibration = self.calibration.hash_of(dimension)
        return identity.of_trajectory(
            self.config, self.inputs.weights, calibration, dimension, start
        )

    def _decide(
        self,
        dimension: Dimension,
        index: int,
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,
    ) -> Step:
        return self._strategy.step(
            index,
            state,
            candidates,
            self.calibration.of(dimension),
            last,
            self.inputs.listener.on_scored,
        )

    def _warn_of_other_versions(self, made_by: dict[str, Any]) -> None:
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
