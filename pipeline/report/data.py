"""Everything that a report shows, as plain values. Whoever makes a report fills these in."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pipeline.measure.record import Record, TaskScore, average_accuracy, tasks_protocol
from pipeline.pruning.origin import Origin
from pipeline.pruning.records import StepRecord
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import PERPLEXITY
from pipeline.pruning.units import Candidate

Side = Literal["dense", "pruned"]
SIDES: tuple[Side, ...] = get_args(Side)
Model = Literal["dense", "pruned", "recovered"]
MODELS: tuple[Model, ...] = get_args(Model)
"""Also the pruned model after recovery, which is evaluated and never probed."""


@dataclass(frozen=True, slots=True)
class UnitLoss:
    """The dense model without one unit."""

    candidate: Candidate
    score: float | None
    """Of the criterion, e.g. perplexity. None where it is no number."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How the dense model takes the loss of each unit of one dimension."""

    dense_ppl: float | None
    """None where it is not known, or the scores are no perplexities."""
    losses: tuple[UnitLoss, ...]
    score_name: str = PERPLEXITY
    """What the scores are called."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Sensitivity":
        """From one dimension's entry in ``sensitivity.json``."""
        candidates = entry["candidates"]
        is_perplexity = all("ppl" in candidate for candidate in candidates)
        losses = tuple(
            UnitLoss(Candidate.from_json(candidate), candidate["ppl" if is_perplexity else "score"])
            for candidate in candidates
        )
        if is_perplexity:
            return cls(entry["dense_ppl"], losses)
        return cls(None, losses, "score")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What one evaluation, or one probe, measured of the models."""

    dense: Record | None
    pruned: Record | None
    recovered: Record | None = None

    def of(self, side: Model) -> Record | None:
        """What was measured of one model."""
        return {"dense": self.dense, "pruned": self.pruned, "recovered": self.recovered}[side]

    @property
    def has_tasks(self) -> bool:
        """Whether accuracy was measured of any of them."""
        return bool(self.tasks("dense") or self.tasks("pruned"))

    def tasks(self, side: Model) -> tuple[TaskScore, ...]:
        """Task scores of one model."""
        record = self.of(side)
        return record.tasks if record else ()


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Perplexity of the models on one text."""

    protocol: str
    """Text, tokens and windows, in words."""
    dense: float | None
    pruned: float | None
    recovered: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One run. What it did not measure is None or empty, and the report leaves it out."""

    name: str
    model_name: str
    target_ratio: float
    """Percent of all parameters."""
    state: PruningState
    """Where the run ended; its shape is the dense model's."""
    origin: Origin | None = None
    """What the dense model was pruned from, where it was pruned before."""
    device: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What to show of the configuration, nested or flat. It is shown to everyone who reads."""
    dense: Record | None = None
    pruned: Record | None = None
    steps: tuple[StepRecord, ...] = ()
    records: Mapping[int, Record] = field(default_factory=dict)
    """What a probe measured after a step, by the step's number."""
    calibration_text: str = ""
    """What calibration perplexities are taken on, in words."""
    dense_importance: Mapping[str, float | None] | None = None
    """Calibration perplexity of the dense model by dimension."""
    sensitivity: Mapping[str, Sensitivity] = field(default_factory=dict)
    """By dimension."""
    evaluations: tuple[Evaluated, ...] = ()
    """All that there are, the last one first."""
    techniques: tuple[str, ...] = ()
    """What the pruned model was recovered by, one after the other."""
    watched: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Perplexities before and after recovery, by the text that told it whether it helped."""
    learning: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Learning curves, by technique of recovery; see ``Listener.on_learned``."""
    search: Mapping[str, Any] | None = None
    """What a search after the phases published of itself (``search.json``)."""
    exports: Mapping[str, Any] = field(default_factory=dict)
    """What was written for other engines, and measured there, by target."""
    probe_share: float | None = None
    """Fraction of the run's time that went into probes."""
    counts: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the run, e.g. candidates scored, in the words to show."""

    @property
    def shape(self) -> ModelShape:
        """The dense model."""
        return self.state.shape

    def record_of(self, side: Side) -> Record | None:
        """What was measured of the dense or of the pruned model.

        The probe of the last step measured the final state too.
        """
        if side == "dense":
            return self.dense
        return self.pruned or (self.records.get(self.steps[-1].step) if self.steps else None)

    @property
    def workloads(self) -> list[str]:
        """What was timed of the dense or of the pruned model, the main one first."""
        records = [record for side in SIDES if (record := self.record_of(side))]
        named = [latency.workload for record in records for latency in record.latencies]
        return list(dict.fromkeys(named))

    @property
    def probed(self) -> Evaluated:
        """What the probe measured where the run starts and where it ends."""
        return Evaluated(self.record_of("dense"), self.record_of("pruned"))

    @property
    def probed_text(self) -> str:
        """What the curve of perplexities was measured on, in words; empty without one."""
        record = self.record_of("dense") or self.record_of("pruned")
        return record.texts[0].protocol if record and record.texts else ""

    @property
    def probed_tasks(self) -> str:
        """What the curve of accuracies was measured on, in words; empty without one."""
        record = self.record_of("dense") or self.record_of("pruned")
        return tasks_protocol(record.tasks) if record and record.tasks else ""

    @property
    def texts(self) -> list[TextLoss]:
        """Every perplexity that is no calibration perplexity, those of evaluations first."""
        losses = [loss for each in (*self.evaluations, self.probed) for loss in _text_losses(each)]
        return list(dict.fromkeys(losses))

    @property
    def only_watched(self) -> Mapping[str, tuple[float, float]]:
        """``watched``, unless perplexity was measured after recovery."""
        return {} if any(text.recovered for text in self.texts) else self.watched

    @property
    def accuracies(self) -> list[Evaluated]:
        """What measured tasks: evaluations, or the probe where none did.

        Both models' scores come from the same one, else they could not be compared.
        """
        evaluated = [each for each in self.evaluations if each.has_tasks]
        return evaluated or [each for each in [self.probed] if each.has_tasks]

    @property
    def criterion(self) -> str:
        """What decided the steps."""
        return self.steps[-1].decision.criterion if self.steps else PERPLEXITY

    @property
    def dimensions(self) -> list[str]:
        """In the order in which the run pruned them."""
        return list(dict.fromkeys(step.dimension for step in self.steps))

    @property
    def calibration_perplexities(self) -> tuple[float | None, float | None]:
        """Of the dense and of the pruned model, on the windows of the last step's dimension.

        Those of another dimension cannot be compared with it.
        """
        if not self.steps:
            return None, None
        last = self.steps[-1]
        return self.dense_importance_of(last.dimension), finite(last.decision.perplexity)

    def dense_importance_of(self, dimension: str) -> float | None:
        """Calibration perplexity of the dense model on the windows of one dimension."""
        known = (self.dense_importance or {}).get(dimension)
        if known is None and dimension in self.sensitivity:
            known = self.sensitivity[dimension].dense_ppl
        return finite(known)


def _text_losses(evaluated: Evaluated) -> Iterator[TextLoss]:
    """One for each text and way of cutting it, of all models that were measured so."""
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for side in MODELS:
        record = evaluated.of(side)
        for score in record.texts if record else ():
            found.setdefault((score.name, score.protocol), {})[side] = score.ppl
    for (_, protocol), values in found.items():
        yield TextLoss(protocol, *(finite(values.get(side)) for side in MODELS))


def finite(value: float | None) -> float | None:
    """The value, or None where it is no number that can be drawn."""
    return value if value is not None and math.isfinite(value) else None


def mean_accuracy(tasks: Sequence[TaskScore]) -> tuple[float, float | None] | None:
    """Mean accuracy and its standard error, as fractions; None without tasks.

    The error of the mean takes the tasks for independent.
    """
    mean = finite(average_accuracy(tasks))
    if mean is None:
        return None
    return mean, finite(math.hypot(*(task.stderr for task in tasks)) / len(tasks))
