"""What was measured of one state of a model. Plain values, JSON in and out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.pruning.records import Measured


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated measurements of one operation, after warm-up."""

    median_ms: float
    p95_ms: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Prefill and decoding of one batch, with a KV cache."""

    batch: int
    prompt_tokens: int
    output_tokens: int
    prefill: Timing
    """One forward pass over the prompts, ``[batch, prompt_tokens]``."""
    decode: Timing
    """One token for every sequence of the batch, from the cache."""
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes."""

    weights: int
    """All parameters and buffers of the model as it is, a tied one once."""
    kv_cache_per_token: int
    """Keys and values of one token of one sequence, over all attentions that are left."""
    peak: int | None
    """Highest use of the device during the latency measurement; on a CPU, of the process. None
    where it cannot be told."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One lm-eval task. Fractions, not percent."""

    task: str
    items: int
    acc: float
    acc_stderr: float
    acc_norm: float | None
    """Accuracy by length-normalised likelihood, where the task reports it."""
    acc_norm_stderr: float | None

    @property
    def accuracy(self) -> float:
        """acc_norm where it is reported, else acc: as the paper averages."""
        return self.acc if self.acc_norm is None else self.acc_norm

    @property
    def stderr(self) -> float:
        """Standard error of ``accuracy``."""
        return self.acc_stderr if self.acc_norm_stderr is None else self.acc_norm_stderr


def average_accuracy(tasks: Sequence[TaskScore]) -> float | None:
    """Mean accuracy over tasks (a fraction); None without tasks."""
    return sum(task.accuracy for task in tasks) / len(tasks) if tasks else None


@dataclass(frozen=True, slots=True)
class Record:
    """Everything measured of one state. What was not asked for is None or empty."""

    params: int
    """Parameters that the model in memory really has."""
    ppl: float | None
    tasks: tuple[TaskScore, ...]
    latency: Latency | None
    memory: Memory | None
    seconds: float
    """Time that measuring took."""
    made_by: Mapping[str, Any]
    """Versions, device and host."""

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over the tasks (a fraction); None without tasks."""
        return average_accuracy(self.tasks)

    def of_step(self) -> Measured:
        """What a line of ``steps.jsonl`` has of it."""
        return Measured(
            self.ppl,
            self.accuracy,
            asdict(self.latency) if self.latency else None,
            asdict(self.memory) if self.memory else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the averages that readers want."""
        return {**asdict(self), "made_by": dict(self.made_by), "accuracy": self.accuracy}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Record":
        """The inverse of ``to_json``."""
        latency, memory = data["latency"], data["memory"]
        return cls(
            params=data["params"],
            ppl=data["ppl"],
            tasks=tuple(TaskScore(**task) for task in data["tasks"]),
            latency=latency
            and Latency(
                **{
                    **latency,
                    "prefill": Timing(**latency["prefill"]),
                    "decode": Timing(**latency["decode"]),
                }
            ),
            memory=memory and Memory(**memory),
            seconds=data["seconds"],
            made_by=data["made_by"],
        )
