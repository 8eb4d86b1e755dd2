"""How long a stage still takes, told by how long its work has taken so far."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping


class TimeLeft:
    """Times each kind of work.

    A kind that was not timed in this stage is taken to be as fast as in an earlier one; else as
    fast, for its amount, as all that was timed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ahead: dict[str, float] = {}
        self._now, self._before = _Timed(), _Timed()
        self._began = self._told = clock()

    def begin(self) -> None:
        """Another stage begins."""
        self._before.add(self._now)
        self._now, self._ahead = _Timed(), {}
        self._began = self._told = self._clock()

    def ahead(self, amounts: Mapping[str, float]) -> None:
        """What is to be done from now on, by kind of work."""
        self._ahead = dict(amounts)

    def doing(self) -> None:
        """Something begins now: the time since the last word was no work of any kind."""
        self._told = self._clock()

    def progress(self, kind: str, amount: float) -> None:
        """So much of that kind was done since the last word."""
        now = self._clock()
        self._now.note(kind, now - self._told, amount)
        self._told = now
        self._ahead[kind] = max(0.0, self._ahead.get(kind, 0.0) - amount)

    @property
    def seconds(self) -> float | None:
        """Time left; None where nothing was timed yet, or nobody said what is to be done."""
        rates = {kind: self._rate(kind) for kind, amount in self._ahead.items() if amount}
        if not self._ahead or None in rates.values():
            return None
        left = sum(self._ahead[kind] * rate for kind, rate in rates.items() if rate)
        return max(0.0, left - (self._clock() - self._told))

    @property
    def share(self) -> float | None:
        """Share of the stage's time that is over."""
        left, spent = self.seconds, self._clock() - self._began
        return None if left is None else spent / (spent + left) if spent + left else 1.0

    def _rate(self, kind: str) -> float | None:
        rates = (
            self._now.rate(kind),
            self._before.rate(kind),
            self._now.rate(),
            self._before.rate(),
        )
        return next((rate for rate in rates if rate is not None), None)


class _Timed:
    """Seconds and amounts of work, by its kind."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.amounts: dict[str, float] = defaultdict(float)

    def note(self, kind: str, seconds: float, amount: float) -> None:
        self.seconds[kind] += seconds
        self.amounts[kind] += amount

    def add(self, other: "_Timed") -> None:
        for kind in other.seconds:
            self.note(kind, other.seconds[kind], other.amounts[kind])

    def rate(self, kind: str | None = None) -> float | None:
        """Seconds for each unit of a kind, or of all; None where there was none."""
        kinds = self.amounts if kind is None else [kind]
        amount = sum(self.amounts.get(each, 0.0) for each in kinds)
        seconds = sum(self.seconds.get(each, 0.0) for each in kinds)
        return seconds / amount if amount > 0 else None
