"""Lines of ``steps.jsonl``: the steps of a whole run, whichever trajectories they are from."""

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import content_of, understood
from pipeline.pruning.steps import Step
from pipeline.pruning.units import Candidate

SCHEMA_VERSION = 2
"""Of the lines that are written. Version 1 has no ``schema_version`` and is the same otherwise."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a probe measured of the model after a step."""

    ppl: float | None
    """Perplexity on held-out text."""
    accuracy: float | None
    """Mean over tasks, a fraction."""
    latency: Mapping[str, Any] | None
    """The fields of ``measure.record.Latency``, of the main workload."""
    memory: Mapping[str, Any] | None
    """The fields of ``measure.record.Memory``."""
    latencies: Sequence[Mapping[str, Any]] = ()
    """Of all workloads, where there are several."""

    def to_json(self) -> dict[str, Any]:
        """The keys that a line has of it."""
        return {
            "ppl": self.ppl,
            "accuracy": self.accuracy,
            "latency": self.latency,
            "memory": self.memory,
            **({"latencies": list(self.latencies)} if self.latencies else {}),
        }


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step of a run: what was decided, where it led, and what was measured there."""

    step: int
    """Steps of the run before it."""
    dimension: str
    decision: Step
    ratio_percent: float
    """Removed after the step, in percent of all parameters of the dense model."""
    params: int
    """Parameters left after the step."""
    source: tuple[str, int] | None = None
    """The trajectory (its key) and the index there; None in the folder of a run."""
    measured: Measured | None = None

    @property
    def chosen(self) -> Candidate:
        """What went."""
        return self.decision.chosen

    def to_json(self) -> dict[str, Any]:
        """The line's object; ``schema_version`` is its last key."""
        return {
            "step": self.step,
            "dimension": self.dimension,
            **self.chosen.to_json(),
            **self.decision.score_json(),
            "ratio_percent": self.ratio_percent,
            "params": self.params,
            **self.decision.scored_json(),
            **({"source": list(self.source)} if self.source else {}),
            **(self.measured.to_json() if self.measured else {}),
            "schema_version": SCHEMA_VERSION,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StepRecord":
        """The inverse of ``to_json``; reads lines without ``schema_version`` too.

        Raises ``PipelineError`` for a version that is not known.
        """
        version = data.get("schema_version", 1)
        if version not in (1, SCHEMA_VERSION):
            raise PipelineError(
                f"a step has schema_version {version}; known are versions up to {SCHEMA_VERSION}"
            )
        measured = (
            Measured(
                data["ppl"],
                data["accuracy"],
                data["latency"],
                data["memory"],
                data.get("latencies", ()),
            )
            if "accuracy" in data
            else None
        )
        return cls(
            step=data["step"],
            dimension=data["dimension"],
            decision=Step.from_json({**data, "chosen": data}),
            ratio_percent=data["ratio_percent"],
            params=data["params"],
            source=(data["source"][0], data["source"][1]) if "source" in data else None,
            measured=measured,
        )


def to_jsonl(records: Iterable[StepRecord]) -> str:
    """The text of ``steps.jsonl``."""
    return "".join(json.dumps(record.to_json(), allow_nan=False) + "\n" for record in records)


def read_steps(path: Path) -> list[StepRecord]:
    """The records of ``steps.jsonl``. Raises ``FileNotFoundError`` where it is not there."""
    content = content_of(path)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return understood(
        path,
        lambda: [StepRecord.from_json(json.loads(line)) for line in content.decode().splitlines()],
    )
