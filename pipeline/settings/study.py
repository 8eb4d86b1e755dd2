"""``study.*``: runs that are searched for, over ranges of the configuration's own keys."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.files import Json
from pipeline.settings.section import Section, SomeText

Number = Annotated[int | float, Field(allow_inf_nan=False)]
WHOLE = 100
"""What the shares of a simplex add up to."""


class Range(Section):
    """What a key may be: from low to high, one of several choices, or shares."""

    low: Number | None = None
    """The least value; a key of whole numbers has whole ends and steps."""
    high: Number | None = None
    """The greatest value."""
    step: Number | None = Field(None, gt=0)
    """Values are so far apart; of shares in percent, null is 5. Null of numbers: any value."""
    log: bool = False
    """Whether a factor counts the same everywhere, as from 1e-5 to 1e-3; then there is no step."""
    choices: list[bool | int | float | str | list[int | float | str] | None] | None = None
    """The values themselves, in any order."""
    simplex: int | None = Field(None, ge=2)
    """So many shares that add up to 100, for prune.distribution: 3, with experts 4."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Range":
        is_interval = self.low is not None and self.high is not None
        if (is_interval, self.choices is not None, self.simplex is not None).count(True) != 1:
            raise ValueError(
                "allowed is low and high with or without step, or choices, or simplex: one of them"
            )
        if is_interval:
            self._check_interval()
        elif self.low is not None or self.high is not None or self.log:
            raise ValueError("low, high and log go together, and with nothing else")
        if self.choices is not None and not self.choices:
            raise ValueError("choices: is empty; give the values, e.g. choices=[64,128]")
        if self.simplex and (WHOLE % self.shares_step or not isinstance(self.shares_step, int)):
            raise ValueError(f"step: {self.step} does not divide {WHOLE}; allowed is e.g. 2, 5, 10")
        return self

    def _check_interval(self) -> None:
        assert self.low is not None
        assert self.high is not None
        if self.low >= self.high:
            raise ValueError(f"low, {self.low}, is not below high, {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")

    @property
    def shares_step(self) -> int | float:
        """Of a simplex, in percent."""
        return 5 if self.step is None else self.step

    @property
    def is_whole(self) -> bool:
        """Whether an interval is one of whole numbers."""
        step = 1 if self.step is None else self.step
        return all(isinstance(each, int) for each in (self.low, self.high, step))


def _by_key(given: Json) -> Json:
    """Ranges by dotted keys, as they may be nested: {prune: {target_ratio: {low: 5}}}."""
    return dict(_leaves(given, "")) if isinstance(given, Mapping) else given


def _leaves(given: Mapping[str, Json], prefix: str) -> Iterator[tuple[str, Json]]:
    for name, value in given.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            yield key, value
            continue
        own = {name: each for name, each in value.items() if name in Range.model_fields}
        if own or not value:
            yield key, own
        yield from _leaves({n: each for n, each in value.items() if n not in own}, f"{key}.")


class StudyConfig(Section):
    """A search over runs: which to take where several things count."""

    key: ClassVar[str] = "study"

    space: Annotated[dict[str, Range], BeforeValidator(_by_key)] = Field(default_factory=dict)
    """Ranges of configuration keys, e.g. {prune.target_ratio: {low: 5, high: 25, step: 1}}; each
    has low and high with or without step and log, or choices, or simplex. Empty: no search."""
    objectives: list[SomeText] = Field(default_factory=list)
    """What counts: "minimize ppl", "maximize accuracy", "minimize decode_ms long_16". There are
    accuracy [TASK], ppl [TEXT], prefill_ms, decode_ms, prefill_speedup and decode_speedup
    [WORKLOAD], memory_mb, weights_mb, kv_cache_bytes, params and ratio (percent removed)."""
    constraints: list[SomeText] = Field(default_factory=list)
    """What a run must have: "accuracy >= dense - 2", "ppl <= dense * 1.2", "decode_ms <= 8"."""
    runs: int | None = Field(None, ge=1)
    """Budget: runs at most, failed ones too. A larger one continues the study."""
    gpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Budget: no generation begins after so many hours of GPUs."""
    method: Literal["tpe", "nsga2", "random"] = "tpe"
    """What proposes, by Optuna: tpe (a model of what is good; best for some dozens of runs), nsga2
    (evolution, for several generations), random."""
    population: int = Field(8, ge=2)
    """Runs that are proposed together; on a cluster they run side by side."""
    seed: int = Field(0, ge=0)
    """Of what is drawn. The same seed and results propose the same runs anywhere."""
    reference: list[Number] | None = None
    """For each objective the value from which the hypervolume is measured; null: a tenth of
    the first generation's range beyond its worst."""
