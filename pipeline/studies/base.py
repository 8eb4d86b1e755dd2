"""What a study is: a pure function from the trials so far to the next ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.files import Json
from pipeline.models.source import ModelSource
from pipeline.report.compare.records import ComparedRun
from pipeline.settings.core import Config

State = Literal["proposed", "done", "failed"]
Outcome = Mapping[str, float]
"""What a study reads of a run, by quantity."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposed run."""

    number: int
    """From 0."""
    values: Mapping[str, Json]
    """Configuration keys, and what the run has there: {"prune.target_ratio": 12.5}."""
    outcome: Outcome | None = None
    """None before the run is done, or where it failed."""
    state: State = "proposed"
    generation: int = 0
    """Trials of a generation were proposed together, from those of the generations before."""
    run: str | None = None
    """The run's folder; None before it was planned."""
    reason: str | None = None
    """What it failed of."""
    gpu_hours: float = 0.0
    """What the run itself computed: hours, times the GPUs that it had. One where it had none."""
    counts_from: int | None = None
    """Of a run that failed and was done later: the first generation that was proposed with its
    outcome. None: that after its own."""


class Study(ABC):
    """Proposes runs from what those before gave.

    Both functions are pure: the trials on disk alone decide what comes next, wherever and
    however often the study goes on.
    """

    @abstractmethod
    def next(self, trials: Sequence[Trial]) -> Sequence[Mapping[str, Json]]:
        """Values for the runs of the next generation; none: the study is over.

        No trial is open: each is done or failed. Raises ``StageError`` where it cannot go on.
        """

    @abstractmethod
    def outcome(self, run: ComparedRun) -> dict[str, float]:
        """What counts of a finished run. Raises ``StageError`` where the run does not have it."""

    def outcome_in_words(self, trial: Trial) -> str:  # noqa: ARG002
        """What came of a trial that is done; empty where the line of its run says enough."""
        return ""

    def configured(self, config: Config, values: Mapping[str, Json]) -> Config:  # noqa: ARG002
        """A run's validated configuration with what follows from its being part of a study.

        ``values`` are its trial's.
        """
        return config

    def goes_on_after(self, trial: Trial) -> bool:  # noqa: ARG002
        """Whether a trial that failed says what the study looks for, and is no reason to stop."""
        return False

    def is_apart(self, values: Mapping[str, Json]) -> bool:  # noqa: ARG002
        """Whether a run is done in another process than those before, wherever runs are done."""
        return False

    def ending(self, trials: Sequence[Trial]) -> "Ending | None":  # noqa: ARG002
        """What came of it all; None where that is left to the comparison of its runs."""
        return None

    @property
    def identity(self) -> Mapping[str, Json]:
        """Settings that may not change while the study goes on, by what they are called."""
        return {}

    @property
    def budget(self) -> str:
        """How long it goes on, in words."""
        return ""

    @property
    def name(self) -> str:
        """What its sweep is called where nothing else names it."""
        return "study"


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a study."""

    text: str
    """In words."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """For programs."""
    run: str | None = None
    """The folder of the run that was looked for; None where there is none."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of study, and which configurations ask for it."""

    is_wanted: Callable[[Config], bool]
    of: Callable[[Config, ModelSource, Collection[str]], Study]
    """The study of a configuration whose model was found; the keys are those that the user typed.

    Raises ``ConfigError`` with everything that is wrong.
    """


class Alone(Study):
    """One run, as it was typed: it stands beside others that are proposed."""

    def next(self, trials: Sequence[Trial]) -> Sequence[Mapping[str, Json]]:
        """The run itself, once."""
        return () if trials else ({},)

    def outcome(self, run: ComparedRun) -> dict[str, float]:  # noqa: ARG002
        """Nothing: it is compared as any run."""
        return {}
