"""``summary.json``: what a launch did for a run, and where the run stands."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from pipeline.errors import DamagedError
from pipeline.files import read_sealed, replace, sealed, understood
from pipeline.measure.record import Record
from pipeline.pruning.origin import Origin
from pipeline.pruning.shape import ModelShape

FILE = "summary.json"


def _read_as(kind: Any) -> BeforeValidator:
    return BeforeValidator(
        lambda value: kind.from_json(value) if isinstance(value, dict) else value
    )


_WRITTEN = PlainSerializer(lambda value: value and value.to_json())
Measurement = Annotated[Record | None, _read_as(Record), _WRITTEN]
FirstModel = Annotated[Origin | None, _read_as(Origin), _WRITTEN]
Shape = Annotated[ModelShape | None, _read_as(ModelShape), _WRITTEN]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


class StageSummary(_Part):
    """What was done of one stage."""

    key: str
    status: Literal["waiting", "new", "reused", "failed"]
    seconds: float = 0.0
    candidates_scored: int = 0
    measuring_seconds: dict[str, float] = Field(default_factory=dict)
    """Of the seconds those that each kind of measurement took: texts, tasks, latency."""
    passes: int = 0
    """Passes over the calibration text, for statistics or gradients."""

    def plus(self, other: "StageSummary") -> "StageSummary":
        """Both processes' work on the stage; it is new where either computed it."""
        is_new = self.status == "reused" and other.status == "new"
        return self.model_copy(
            update={
                "status": "new" if is_new else self.status,
                "seconds": round(self.seconds + other.seconds, 3),
                "candidates_scored": self.candidates_scored + other.candidates_scored,
                "measuring_seconds": summed(self.measuring_seconds, other.measuring_seconds),
                "passes": self.passes + other.passes,
            }
        )


def summed(seconds: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each kind of measurement, together."""
    kinds = {**seconds, **others}
    return {kind: round(seconds.get(kind, 0.0) + others.get(kind, 0.0), 3) for kind in kinds}


class Work(_Part):
    """What one process computed of a run."""

    stages: dict[str, StageSummary] = Field(default_factory=dict)
    steps_computed: int = 0
    """Steps of the run that were computed, not found on disk."""
    states_measured: int = 0
    states_evaluated: int = 0
    """Evaluations of a search, each of a state on a piece of text, that were computed."""
    evaluations_found: int = 0
    """Those that it found on disk."""

    def plus(self, earlier: "Work") -> "Work":
        """With what was computed before."""
        return Work(
            stages=_together(self.stages, earlier.stages),
            steps_computed=self.steps_computed + earlier.steps_computed,
            states_measured=self.states_measured + earlier.states_measured,
            states_evaluated=self.states_evaluated + earlier.states_evaluated,
            evaluations_found=self.evaluations_found + earlier.evaluations_found,
        )


def _together(
    stages: Mapping[str, StageSummary], others: Mapping[str, StageSummary]
) -> dict[str, StageSummary]:
    joined = {n: stages[n].plus(theirs) if n in stages else theirs for n, theirs in others.items()}
    return {**stages, **joined}


class Audit(_Part):
    """Steps of a race that were scored exhaustively, too."""

    steps: int = 0
    decided_otherwise: int = 0


class Measured(_Part):
    """What the probe measured of the dense model and of the state in which the run ended."""

    dense: Measurement = None
    pruned: Measurement = None


class Summary(_Part):
    """One run after a launch. What is not known is None."""

    run: str = ""
    """Name of the run's folder."""
    status: str = "unfinished"
    """done, running, interrupted or failed."""
    error: str | None = None
    target_ratio: float | None = None
    steps: int = 0
    ratio_percent: float = 0.0
    params: int | None = None
    total_params: int | None = None
    ppl: float | None = None
    """Calibration perplexity after the last step."""
    dense_ppl: float | None = None
    """The dense model's on the windows of the last step's dimension."""
    evaluation: dict[str, Any] | None = None
    exports: dict[str, Any] = Field(default_factory=dict)
    """What was written and checked, by target."""
    model: str = ""
    """What the dense model of this run is called."""
    origin: FirstModel = None
    """What that was pruned from, where it was pruned and exported before."""
    shape: Shape = None
    measured: Measured = Measured()
    candidates_scored: int = 0
    candidates_scored_in_full: int = 0
    passes: int = 0
    """Passes over the calibration text that were made for statistics or gradients."""
    audit: Audit = Audit()
    steps_computed: int = 0
    states_measured: int = 0
    states_evaluated: int = 0
    """Evaluations of a search, each of a state on a piece of text, that were computed."""
    evaluations_found: int = 0
    """Those that it found on disk."""
    seconds: float = 0.0
    probe_share: float | None = None
    """Share of pruning's time that went into measuring; None where nothing was pruned."""
    stages: dict[str, StageSummary] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    made_by: Mapping[str, Any] = Field(default_factory=dict)
    """Versions, device and host."""

    def plus(self, others: Iterable[Work]) -> "Summary":
        """With what other processes did for the run."""
        works = list(others)
        stages = self.stages
        for work in works:
            stages = _together(stages, work.stages)
        return self.model_copy(
            update={
                "stages": stages,
                "candidates_scored": sum(entry.candidates_scored for entry in stages.values()),
                "passes": sum(entry.passes for entry in stages.values()),
                "steps_computed": self.steps_computed + sum(w.steps_computed for w in works),
                "states_measured": self.states_measured + sum(w.states_measured for w in works),
                "states_evaluated": self.states_evaluated + sum(w.states_evaluated for w in works),
                "evaluations_found": self.evaluations_found
                + sum(w.evaluations_found for w in works),
            }
        )

    def with_status(self, status: str) -> "Summary":
        """The same with another status."""
        return self.model_copy(update={"status": status})

    def write(self, folder: Path) -> None:
        """Into a run's folder, in place of the one that is there."""
        replace(folder / FILE, sealed(self.model_dump(mode="json"), FILE))

    @classmethod
    def read(cls, folder: Path) -> "Summary | None":
        """The summary in a run's folder; None where there is none that can be read."""
        try:
            return cls.checked(folder)
        except (OSError, DamagedError):
            return None

    @classmethod
    def checked(cls, folder: Path) -> "Summary | None":
        """The same; None only where there is none. Raises ``DamagedError``."""
        data = read_sealed(folder / FILE, FILE)
        if data is None:
            return None
        return understood(folder / FILE, lambda: cls.model_validate(data))
