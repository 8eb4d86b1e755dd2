"""Following a trajectory: steps on disk as they are, missing ones decided and recorded."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import DamagedError
from pipeline.files import set_aside
from pipeline.pruning.phases import Phase
from pipeline.pruning.records import StepRecord
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.pruning.trajectory import Guard, Trajectory
from pipeline.pruning.units import Candidate

Decide = Callable[[int, PruningState, Sequence[Candidate], Step | None], Step]
"""The step with this index: which candidate leaves the state; the last argument is the step before,
None for the first."""


class WalkListener(Protocol):
    """Hears how a walk goes on."""

    def on_wait(self, holder: str) -> None:
        """Another process, in words, computes the next step."""

    def on_computed(self, index: int, step: Step) -> None:
        """A step was computed here and is on disk."""

    def on_read(self, index: int) -> None:
        """A step was on disk."""

    def on_damaged(self, text: str) -> None:
        """A step on disk was damaged and set aside; it is decided again."""


def walk(
    trajectory: Trajectory,
    phase: Phase,
    start: PruningState,
    steps_before: int,
    decide: Decide,
    made_by: Mapping[str, Any],
    listener: WalkListener,
) -> Generator[StepRecord, None, None]:
    """Steps of a phase from ``start``, each as it is asked for, until nothing is left to remove.

    Steps on disk are taken as they are; missing ones are decided and recorded by whoever holds the
    trajectory's lock. While another process holds it, this one reads the steps as they appear.
    ``steps_before`` are those of the run so far. Closing the generator gives the lock back.
    """
    state, index = start, 0
    guard: Guard | None = None
    last: Step | None = None
    aside: set[Path] = set()
    with ExitStack() as held:
        while candidates := phase.candidates(state):
            try:
                step = trajectory.read(index, candidates)
            except DamagedError as damage:
                if damage.path in aside:
                    raise
                aside.add(damage.path)
                listener.on_damaged(f"{set_aside(damage)}; the step is decided again")
                continue
            if step is not None:
                listener.on_read(index)
            elif guard is None:
                with ExitStack() as waiting:
                    is_there = partial(trajectory.has, index)
                    guard = waiting.enter_context(trajectory.lock(listener.on_wait, is_there))
                    if guard is not None:
                        held.push(waiting.pop_all())
                continue  # read again: another process may have recorded this step meanwhile
            else:
                started = time.monotonic()
                step = decide(index, state, candidates, last)
                noted = {**made_by, "seconds": time.monotonic() - started}
                step = trajectory.record(index, step, noted, guard)
                listener.on_computed(index, step)
            last, state = step, state.without(step.chosen)
            yield StepRecord(
                step=steps_before + index,
                dimension=phase.dimension,
                decision=step,
                ratio_percent=state.ratio_percent,
                params=state.params,
                source=(trajectory.key, index),
            )
            index += 1
