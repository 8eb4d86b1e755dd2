"""The least ratio at which a model has what is wanted, by measured runs.

The first run is at a guess. While none has it, the next goes further, as far as those before let
expect; then the bracket between the last that has not and the first that has is narrowed, by a
straight line through both ends and by halving. What was timed is timed once more in another process
before it counts, and so is what would have it if its interval were shorter; where both differ a
third time decides. So a ratio that had it by luck lacks it, and the search goes on above. More
noise makes more runs, not a wrong end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.files import Json
from pipeline.stages.prune import UNREACHED
from pipeline.studies.base import Outcome, Trial
from pipeline.studies.goals import RATIO, Goal

TARGET, AGAIN, EVERY = "prune.target_ratio", "probe.again", "probe.every"
ENDS = 1_000_000
"""Of ``EVERY``, in all runs on the way: more steps than there are, so that both ends are measured
alone."""
FARTHER, MUCH_FARTHER = 1.2, 2.0
"""The next ratio is at least and at most so many times the last, while none has what is wanted."""
MARGIN = 1.05
"""So much further than a straight line says."""
INNER = 0.1
"""A straight line's point keeps this share of the bracket away from its ends."""
ALIKE_PERCENT = 1.0
"""Ends of a bracket that are no further apart are not looked between where both measure alike."""


@dataclass(frozen=True, slots=True)
class Tried:
    """All that was measured at one ratio."""

    ratio: float
    outcomes: tuple[Outcome, ...]

    @property
    def reached(self) -> float:
        """What its runs removed: at least the ratio."""
        return max(outcome.get(RATIO, self.ratio) for outcome in self.outcomes)

    def votes(self, goals: Sequence[Goal]) -> list[bool]:
        """Of each measurement, whether it has everything."""
        return [all(goal.is_met(outcome) for goal in goals) for outcome in self.outcomes]

    def has(self, goals: Sequence[Goal]) -> bool:
        """Whether most measurements have everything."""
        votes = self.votes(goals)
        return 2 * sum(votes) > len(votes)

    def is_open(self, goals: Sequence[Goal]) -> bool:
        """Whether another measurement has to tell: as many have everything as have not.

        Or the only one would have it if it were surer.
        """
        votes, (first, *more) = self.votes(goals), self.outcomes
        if not more and not votes[0]:
            return all(goal.is_likely_met(first) for goal in goals)
        return 2 * sum(votes) == len(votes)

    def may_have(self, goals: Sequence[Goal]) -> bool:
        """Whether one more measurement could be another: it was timed once, too roughly to say."""
        (first, *more) = self.outcomes
        return not more and all(goal.may_be_met(first) for goal in goals)

    def share(self, goals: Sequence[Goal]) -> float:
        """How far it is on the way from the dense model, of several measurements what counts."""
        shares = [min(goal.share(outcome) for goal in goals) for outcome in self.outcomes]
        return max(shares) if self.has(goals) else min(shares)


@dataclass(frozen=True)
class Bisection:
    """The search of one combination."""

    goals: tuple[Goal, ...]
    """All must be met; none where only ``least`` says where it ends."""
    least: float
    """Lower ratios have not what is wanted, by arithmetic; 0 where none says so."""
    cap: float
    """The highest ratio that is tried."""
    step: float
    """Ratios closer together are not told apart."""
    guess: float
    """Where the first run is."""

    @property
    def is_timed(self) -> bool:
        """Whether anything is measured that may come out otherwise."""
        return any(goal.is_timed for goal in self.goals)

    @property
    def most_runs(self) -> int:
        """How many runs there may be, where noise does not mislead, the one at the end included."""
        if not self.goals:
            return 1
        farther = math.log(max(1.0, self.cap / self._first)) / math.log(FARTHER)
        places = max(1.0, (self.cap - self.least) / self.step)
        return math.ceil(farther) + 2 * math.ceil(math.log2(places)) + 2 * self.is_timed + 2

    def next(self, trials: Sequence[Trial]) -> list[Mapping[str, Json]]:
        """The next run, by what is known of those before; none: it is over, or one failed.

        Runs on the way have ``EVERY``; the one at the ratio that was found has not.
        """
        failed = [trial for trial in trials if trial.state == "failed"]
        if ended(trials) or not all(map(is_limit, failed)):
            return []
        limit = min((trial.values[TARGET] for trial in failed), default=math.inf)
        tried = tried_of(trials)
        if self.goals and (values := self._on_the_way(tried, limit)):
            return [values]
        _, having = self._bracket(tried)
        if having:
            return [{TARGET: having.ratio, AGAIN: having.votes(self.goals).index(True)}]
        return [] if self.goals else [{TARGET: self.least, AGAIN: 0}]

    def _on_the_way(self, tried: Sequence[Tried], limit: float) -> dict[str, Json] | None:
        """What to measure next; None where nothing more would tell."""
        low, having = self._bracket(tried)
        if split := next((each for each in tried if each.is_open(self.goals)), None):
            return on_the_way(split.ratio, len(split.outcomes))
        if having is None:
            if ratio := self._farther(low, limit):
                return on_the_way(ratio)
            return on_the_way(low.ratio, 1) if low and low.may_have(self.goals) else None
        if not self._is_closed(low, having):
            return on_the_way(self._between(tried))
        is_sure = len(having.outcomes) > 1 or not self.is_timed
        return None if is_sure else on_the_way(having.ratio, 1)

    def below(self, trials: Sequence[Trial]) -> Tried | None:
        """The highest ratio that lacks something, below the one that was found; None: not tried."""
        return self._bracket(tried_of(trials))[0]

    def best(self, trials: Sequence[Trial]) -> Tried | None:
        """What came nearest; None before anything was tried."""
        tried = tried_of(trials)
        return max(tried, key=lambda each: each.share(self.goals), default=None)

    def _bracket(self, tried: Sequence[Tried]) -> tuple[Tried | None, Tried | None]:
        """The lowest ratio that has everything, and before it the highest below that lacks some."""
        has = {each.ratio: each.has(self.goals) for each in tried}
        having = min((each for each in tried if has[each.ratio]), key=_ratio, default=None)
        lacking = (
            each
            for each in tried
            if not has[each.ratio] and (having is None or each.ratio < having.ratio)
        )
        return max(lacking, key=_ratio, default=None), having

    @property
    def _first(self) -> float:
        return self._on_grid(self.guess)

    def _farther(self, low: Tried | None, limit: float) -> float | None:
        """A ratio above all that were tried, and below ``limit``; None where there is none."""
        begin = self._begin(low)
        if begin >= self.cap:
            return None
        if low is None:
            ratio = self._first
        else:
            share = low.share(self.goals)
            factor = MARGIN / share if share > 0 else MUCH_FARTHER
            ahead = begin * min(MUCH_FARTHER, max(FARTHER, factor))
            ratio = self._on_grid(max(ahead, begin + self.step))
        if ratio < limit:
            return ratio
        middle = (begin + limit) / 2
        return middle if limit - begin > self.step * 1.5 else None

    def _width(self, tried: Sequence[Tried]) -> float:
        """Of the bracket; infinite while nothing has what is wanted."""
        low, having = self._bracket(tried)
        return having.ratio - self._begin(low) if having else math.inf

    def _begin(self, low: Tried | None) -> float:
        return max(low.ratio, low.reached) if low else self.least

    def _is_closed(self, low: Tried | None, having: Tried) -> bool:
        """Whether no ratio between them is worth a run."""
        width = having.ratio - self._begin(low)
        if width < self.step * 1.5:
            return True
        if low is None or width > ALIKE_PERCENT:
            return False
        return all(goal.is_alike(low.outcomes[0], having.outcomes[0]) for goal in self.goals)

    def _between(self, tried: Sequence[Tried]) -> float:
        """Where a straight line has what is wanted; the middle, where the last one took little."""
        low, having = self._bracket(tried)
        assert having
        begin, width = self._begin(low), self._width(tried)
        before, at = self._width(tried[:-1]), 0.5
        if width <= before / 2 or before == math.inf:
            below, above = low.share(self.goals) if low else 0.0, having.share(self.goals)
            at = min(1 - INNER, max(INNER, (1 - below) / (above - below)))
        inner = self._on_grid(begin + self.step), self._on_grid(having.ratio - self.step)
        ratio = min(max(self._on_grid(begin + at * width), inner[0]), inner[1])
        return ratio if begin < ratio < having.ratio else begin + width / 2

    def _on_grid(self, ratio: float) -> float:
        """The nearest ratio that a run may have."""
        near = round(round(ratio / self.step) * self.step, 10)
        return min(self.cap, max(near, self.least or self.step))


def on_the_way(ratio: float, again: int = 0) -> dict[str, Json]:
    """The values of a run on the way."""
    return {TARGET: ratio, AGAIN: again, EVERY: ENDS}


def _ratio(tried: Tried) -> float:
    return tried.ratio


def is_limit(trial: Trial) -> bool:
    """Whether a run failed because so much cannot be removed."""
    return trial.state == "failed" and UNREACHED in (trial.reason or "")


def ended(trials: Sequence[Trial]) -> Trial | None:
    """The run at the ratio that was found; None before it is done."""
    return next((t for t in trials if t.state == "done" and EVERY not in t.values), None)


def tried_of(trials: Sequence[Trial]) -> list[Tried]:
    """The ratios that were measured, in the order in which they first were."""
    outcomes: dict[float, list[Outcome]] = {}
    for trial in trials:
        if trial.outcome is not None and EVERY in trial.values:
            outcomes.setdefault(trial.values[TARGET], []).append(trial.outcome)
    return [Tried(ratio, tuple(each)) for ratio, each in outcomes.items()]
