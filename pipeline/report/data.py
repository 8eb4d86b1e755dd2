"""Everything that a report tells, as plain values. Whoever makes a report fills these in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.measure.record import Record, TaskScore, average_accuracy
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import Dimension, PruningState, Unit

Which = Literal["dense", "pruned"]


@dataclass(frozen=True, slots=True)
class ReportStep:
    """One step of the run, and what a probe measured after it."""

    step: int
    dimension: Dimension
    unit: Unit
    layer: int
    width_after: int
    importance: float | None
    """Calibration perplexity after the step."""
    ratio_percent: float
    params: int
    record: Record | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any], record: Record | None = None) -> "ReportStep":
        """From a line of ``steps.jsonl``."""
        return cls(
            step=row["step"],
            dimension=row["dimension"],
            unit=row["unit"],
            layer=row["layer"],
            width_after=row["width_after"],
            importance=row["importance"],
            ratio_percent=row["ratio_percent"],
            params=row["params"],
            record=record,
        )


@dataclass(frozen=True, slots=True)
class UnitLoss:
    """The dense model without one unit."""

    unit: Unit
    layer: int
    width_after: int
    ppl: float | None
    """None where it is no number."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How the dense model takes the loss of each unit of one dimension."""

    dense_ppl: float | None
    losses: tuple[UnitLoss, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Sensitivity":
        """From one dimension's entry in ``sensitivity.json``."""
        losses = tuple(
            UnitLoss(c["unit"], c["layer"], c["width_after"], c["ppl"]) for c in entry["candidates"]
        )
        return cls(entry["dense_ppl"], losses)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the closing evaluation of one model said."""

    tasks: tuple[TaskScore, ...] = ()
    ppl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One run. What it did not measure is None or empty, and the report leaves it out."""

    name: str
    model_name: str
    target_ratio: float
    """Percent of all parameters."""
    state: PruningState
    """Where the run ended; its shape is the dense model's."""
    device: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What to show of the configuration, nested or flat. It is shown to everyone who reads."""
    dense: Record | None = None
    pruned: Record | None = None
    steps: tuple[ReportStep, ...] = ()
    dense_importance: Mapping[str, float | None] | None = None
    """Calibration perplexity of the dense model by dimension."""
    sensitivity: Mapping[str, Sensitivity] = field(default_factory=dict)
    """By dimension."""
    evaluation: Mapping[Which, Evaluation] = field(default_factory=dict)
    evaluation_text: str = "WikiText-2"
    """What the evaluation's perplexity was taken on."""
    probe_share: float | None = None
    """Fraction of the run's time that went into probes."""
    counts: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the run, e.g. candidates scored, in the words to show."""

    @property
    def shape(self) -> ModelShape:
        """The dense model."""
        return self.state.shape

    def record_of(self, which: Which) -> Record | None:
        """What was measured of the dense or of the pruned model.

        The probe of the last step measured the final state too.
        """
        if which == "dense":
            return self.dense
        return self.pruned or (self.steps[-1].record if self.steps else None)

    def tasks_of(self, which: Which) -> tuple[TaskScore, ...]:
        """Task scores of the evaluation; of the probe where no model was evaluated.

        Both models' scores come from the same of the two, else they could not be compared.
        """
        if any(evaluation.tasks for evaluation in self.evaluation.values()):
            evaluation = self.evaluation.get(which)
            return evaluation.tasks if evaluation else ()
        record = self.record_of(which)
        return record.tasks if record else ()

    def evaluation_ppl_of(self, which: Which) -> float | None:
        """Perplexity on the evaluation's text."""
        evaluation = self.evaluation.get(which)
        return finite(evaluation.ppl) if evaluation else None

    def dense_importance_of(self, dimension: Dimension) -> float | None:
        """Calibration perplexity of the dense model on the windows of one dimension."""
        known = (self.dense_importance or {}).get(dimension)
        if known is None and dimension in self.sensitivity:
            known = self.sensitivity[dimension].dense_ppl
        return finite(known)


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
