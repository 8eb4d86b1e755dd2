"""How much of a descent is ahead: played with likely candidates in place of those that will go."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType

from pipeline.methods import method_of
from pipeline.pruning.phases import Phase
from pipeline.pruning.play import play
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.probe import ProbeConfig, is_due
from pipeline.stages.shared.search import Search

Amounts = Mapping[str, float]
"""Work by its kind, as listeners are told it."""
NOTHING: Amounts = MappingProxyType({})
PLAYED_AGAIN = 0.1
"""Share of the steps that were played after which the rest is played again."""


class Ahead:
    """Tells the listener before every step what is to be done.

    ``measuring`` is what a probe takes, ``after`` what comes after the phases.
    """

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        search: Search,
        phases: Sequence[Phase],
        measuring: Amounts,
        after: Amounts = NOTHING,
    ) -> None:
        self._inputs, self._search, self._phases = inputs, search, phases
        self._choice, self._probe = method_of(config.prune).choice, config.of(ProbeConfig)
        self._measuring, self._after = measuring, after
        self._phase, self._start = -1, 0
        self._rest: list[Counter[str]] = [Counter()]
        """What is ahead from step ``_start`` on, from the one after it, and so on to nothing."""

    def tell(
        self,
        phase: int,
        state: PruningState,
        steps: int,
        last: Candidate | None = None,
        first: Amounts = NOTHING,
    ) -> None:
        """What is ahead in a state after so many steps, in the phase of this index.

        ``last`` is what the last step of the phase took; ``first`` is to be done before.
        """
        is_work = self._rest[0].total() > 0
        is_old = is_work and steps - self._start > PLAYED_AGAIN * (len(self._rest) - 1)
        if phase != self._phase or is_old:
            played = list(self._played(phase, state, steps, last))
            nothing = Counter[str]()
            self._rest = list(accumulate(reversed(played), sum_of, initial=nothing))[::-1]
            self._phase, self._start = phase, steps
        rest = self._rest[min(steps - self._start, len(self._rest) - 1)]
        self._inputs.listener.on_ahead(sum_of(sum_of(rest, self._after), first))

    def _played(
        self, phase: int, state: PruningState, steps: int, last: Candidate | None
    ) -> Iterator[Amounts]:
        from_layer = last.layer if last else 0
        for each in self._phases[phase:]:
            for step in play(each, state, self._choice, from_layer):
                scoring = self._search.work(each, step.state, step.scored, step.from_layer)
                state, steps = step.after, steps + 1
                is_last = state.ratio_percent >= self._phases[-1].end_percent
                is_probed = is_due(self._probe, steps) or (self._probe.every > 0 and is_last)
                yield {**scoring, **(self._measuring if is_probed else NOTHING)}
            from_layer = 0


def sum_of(one: Counter[str], other: Amounts) -> Counter[str]:
    """Both together."""
    total = Counter(one)
    total.update(other)
    return total
