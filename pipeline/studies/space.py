"""Ranges of configuration keys as parameters of a search, and back."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.files import Json, encode
from pipeline.settings.study import WHOLE, Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST = 1e-6
"""Of the numbers whose logarithms are shares: zero has none."""
SHARES = "[{}]"
"""After a key: the place of one of its shares."""
DIGITS = 10
"""Of a number that a run is given: 12.6, not 12.600000000000001."""


@dataclass(frozen=True, slots=True)
class Space:
    """What may vary, by configuration key."""

    ranges: Mapping[str, Range]

    def distributions(self) -> "dict[str, BaseDistribution]":
        """What parameters are drawn from: one for each key, of shares one for each."""
        from optuna.distributions import FloatDistribution

        drawn: dict[str, BaseDistribution] = {}
        for key, each in self.ranges.items():
            if each.simplex:
                drawn |= {name: FloatDistribution(LEAST, 1.0) for name in _of_shares(key, each)}
            else:
                drawn[key] = distribution_of(each)
        return drawn

    def values_of(self, params: Mapping[str, Any]) -> dict[str, Json]:
        """What drawn parameters mean."""
        values: dict[str, Json] = {}
        for key, each in self.ranges.items():
            if each.simplex:
                drawn = [params[name] for name in _of_shares(key, each)]
                values[key] = shares_of(drawn, int(each.shares_step))
            elif each.choices is not None:
                values[key] = json.loads(params[key])
            else:
                value = params[key]
                values[key] = round(value, DIGITS) if isinstance(value, float) else value
        return values

    def params_of(self, values: Mapping[str, Json]) -> dict[str, Any]:
        """Parameters that give values; of shares one set of the many that do."""
        params: dict[str, Any] = {}
        for key, each in self.ranges.items():
            if each.simplex:
                for name, share in zip(_of_shares(key, each), values[key], strict=True):
                    params[name] = math.exp(-each.simplex * share / WHOLE)
            else:
                params[key] = encode(values[key]) if each.choices is not None else values[key]
        return params

    def ends(self) -> Iterator[tuple[str, str, Json]]:
        """Keys with their outermost values, each with a word for it; of choices all."""
        for key, each in self.ranges.items():
            if each.simplex:
                for place in range(each.simplex):
                    shares = [WHOLE if at == place else 0 for at in range(each.simplex)]
                    yield key, "corner", shares
            elif each.choices is not None:
                yield from ((key, "choice", choice) for choice in each.choices)
            else:
                yield key, "low", each.low
                yield key, "high", each.high

    def coordinates(self, values: Mapping[str, Json]) -> dict[str, Json]:
        """Values by what can be drawn on an axis of its own: a share is one."""
        drawn: dict[str, Json] = {}
        for key, each in self.ranges.items():
            if each.simplex:
                drawn |= zip(_of_shares(key, each), values[key], strict=True)
            else:
                drawn[key] = values[key]
        return drawn

    def axes(self) -> dict[str, Range]:
        """By the names of ``coordinates``; a share is a range of numbers."""
        share = {"low": 0, "high": WHOLE}
        axes: dict[str, Range] = {}
        for key, each in self.ranges.items():
            names = _of_shares(key, each)
            of_share = Range.model_validate({**share, "step": each.shares_step}) if names else each
            axes |= dict.fromkeys(names or [key], of_share)
        return axes


def _of_shares(key: str, given: Range) -> list[str]:
    """What the shares of a key are called; none where it has none."""
    return [key + SHARES.format(place) for place in range(given.simplex or 0)]


def distribution_of(given: Range) -> "BaseDistribution":
    """What Optuna draws a range of numbers, or choices, from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if given.choices is not None:
        return CategoricalDistribution([encode(choice) for choice in given.choices])
    assert given.low is not None
    assert given.high is not None
    if given.is_whole:
        step = int(given.step or 1)
        return IntDistribution(int(given.low), int(given.high), log=given.log, step=step)
    return FloatDistribution(given.low, given.high, log=given.log, step=given.step)


def shares_of(drawn: Sequence[float], step: int) -> list[int]:
    """Shares that add up to 100, in steps of ``step`` percent, of numbers from 0 to 1.

    Minus the logarithms of uniform numbers are exponential, and so their shares are uniform over
    all shares that there are (Devroye, Non-Uniform Random Variate Generation, 11.4).
    """
    sizes = [-math.log(max(each, LEAST)) for each in drawn]
    total = sum(sizes)
    units = WHOLE // step
    exact = [units * (size / total if total else 1 / len(sizes)) for size in sizes]
    whole = [math.floor(each + 1e-9) for each in exact]
    by_rest = sorted(range(len(exact)), key=lambda place: (whole[place] - exact[place], place))
    for place in by_rest[: units - sum(whole)]:
        whole[place] += 1
    return [count * step for count in whole]
