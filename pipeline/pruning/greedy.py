"""The search: in each dimension remove what hurts least, until the dimension's share is reached."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipeline.pruning.state import DIMENSIONS, Candidate, Dimension, PruningState
from pipeline.pruning.trajectory import Guard, Step, Trajectory


class Decide(Protocol):
    """A search bound to a model and calibration tokens."""

    def __call__(
        self, index: int, state: PruningState, candidates: Sequence[Candidate], last: Step | None
    ) -> Step:
        """Step ``index`` of a trajectory: which of ``candidates`` leaves ``state``.

        ``last`` is the step before, None for the first: a faster search may learn from it.
        """


@dataclass(frozen=True, slots=True)
class Taken:
    """A step of a walk, and where it led."""

    source: tuple[str, int]
    """The trajectory's key, and the step's index there."""
    step: Step
    state: PruningState
    new: bool
    """Computed now, not found on disk."""


def thresholds(
    target_ratio: float,
    distribution: Sequence[float],
    order: Sequence[Dimension] = DIMENSIONS,
) -> dict[Dimension, float]:
    """The removed percentage at which each dimension ends: its cumulative share of the target.

    ``distribution`` has the shares of ``DIMENSIONS``; the dimensions come one after the other in
    ``order``.
    """
    total = sum(distribution)
    shares = [distribution[DIMENSIONS.index(dimension)] for dimension in order]
    ends = [target_ratio * (sum(shares[: i + 1]) / total) for i in range(len(shares) - 1)]
    return dict(zip(order, [*ends, target_ratio], strict=True))


def walk(
    trajectory: Trajectory,
    start: PruningState,
    dimension: Dimension,
    group_size: int,
    decide: Decide,
    made_by: Mapping[str, Any],
    on_wait: Callable[[str], None],
) -> Generator[Taken, None, None]:
    """Follow a trajectory from ``start``, each step as it is asked for, until nothing is left.

    Steps on disk are taken as they are; missing ones are scored and recorded by whoever holds the
    trajectory's lock. While another process holds it, this one reads the steps as they appear.
    Closing the generator gives the lock back.
    """
    state, index = start, 0
    guard: Guard | None = None
    last: Step | None = None
    with ExitStack() as held:
        while candidates := state.candidates(dimension, group_size):
            step = trajectory.read(index)
            new = step is None
            if step is None and guard is None:
                with ExitStack() as waiting:
                    is_there = partial(trajectory.has, index)
                    guard = waiting.enter_context(trajectory.lock(on_wait, is_there))
                    if guard is not None:
                        held.push(waiting.pop_all())
                continue  # read again: another process may have taken this step meanwhile
            if step is None and guard is not None:
                started = time.monotonic()
                step = decide(index, state, candidates, last)
                noted = {**made_by, "seconds": time.monotonic() - started}
                step = trajectory.record(index, step, noted, guard)
            assert step is not None
            last, state = step, state.without(step.chosen)
            yield Taken((trajectory.key, index), step, state, new)
            index += 1
