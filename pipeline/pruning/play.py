"""Steps that are still to come, played without a model.

Which piece goes is not known before it is scored; how many candidates there are nearly is. So a
likely one goes in the place of the one that the scores would choose.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.pruning.choice import Choice
from pipeline.pruning.phases import Phase
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.pruning.units import Candidate

LIKELY_HEIGHT = 0.75
"""Where in a model the piece lies that goes first, as a share of its layers: most lie high."""
Read = Callable[[int, Sequence[Candidate]], Step | None]
"""The step with this index, one of the candidates; None where it is not decided yet."""


@dataclass(frozen=True, slots=True)
class PlayedStep:
    """A step of a phase."""

    state: PruningState
    """Before it."""
    scored: Sequence[Candidate]
    from_layer: float
    """Where the step before took something, about; 0 for the first of a phase."""
    decided: Step | None
    after: PruningState


def play(
    phase: Phase,
    state: PruningState,
    choice: Choice,
    from_layer: float = 0,
    read: Read | None = None,
) -> Iterator[PlayedStep]:
    """Steps from a state to the end of a phase: as they were decided, then likely ones.

    ``from_layer`` is where the last step of the phase took something; 0 for the first.
    """
    before: Sequence[Candidate] = ()
    index = 0
    while state.ratio_percent < phase.end_percent and (candidates := phase.candidates(state)):
        step = read(index, candidates) if read else None
        after = state.without(step.chosen if step else likely(state, candidates))
        yield PlayedStep(state, choice.unscored(candidates, before), from_layer, step, after)
        from_layer = LIKELY_HEIGHT * len(state.shape.layers)
        state, before, index = after, candidates, index + 1
        read = read if step else None


def likely(state: PruningState, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate that stands for the one that will go: of the commonest blocks, the widest."""

    def preference(candidate: Candidate) -> tuple[int, int, int]:
        left = sum(len(state.left(kind)) for kind in candidate.unit.kinds)
        return left if candidate.unit.is_whole else 0, candidate.width_after, candidate.layer

    return max(candidates, key=preference)
