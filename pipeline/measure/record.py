"""What was measured of one state of a model. Plain values, JSON in and out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.files import key_of, read_sealed, understood
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
class TextScore:
    """Perplexity on one text, and all that has to be equal for two of them to be compared."""

    name: str
    """What the configuration calls the text."""
    text: str
    """What it is: WikiText-2, or the name of a file."""
    split: str | None
    """Of the data set; None for a file."""
    tokens: int
    """Taken of it, in full windows."""
    is_whole: bool
    """Whether those are all there are."""
    seqlen: int
    """Tokens in a window."""
    ppl: float | None
    """None where it is no number."""

    @property
    def protocol(self) -> str:
        """Text, split, tokens and windows, in words."""
        if not self.tokens:
            return self.text
        title = f"{self.text} {self.split}" if self.split else self.text
        count = f"{self.tokens:,}" if self.is_whole else f"first {self.tokens:,}"
        return f"{title}, {count} tokens, windows of {self.seqlen:,}"


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


def tasks_protocol(tasks: Sequence[TaskScore]) -> str:
    """Which tasks an average is of, and how many items they have, in words."""
    items = [task.items for task in tasks]
    if len(tasks) == 1:
        return f"{tasks[0].task}, {items[0]:,} items"
    span = f"{items[0]:,}" if len(set(items)) == 1 else f"{min(items):,} to {max(items):,}"
    return f"mean of {', '.join(task.task for task in tasks)}, {span} items each"


@dataclass(frozen=True, slots=True)
class Record:
    """Everything measured of one variant. What was not asked for is None or empty."""

    params: int
    """Parameters, counted as everywhere: see ``PruningState.params``."""
    texts: tuple[TextScore, ...]
    tasks: tuple[TaskScore, ...]
    latency: Latency | None
    memory: Memory | None
    seconds: float
    """Time that measuring took."""
    made_by: Mapping[str, Any]
    """Versions, device and host."""

    @property
    def ppl(self) -> float | None:
        """Perplexity on the first text; None without one."""
        return self.texts[0].ppl if self.texts else None

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over the tasks (a fraction); None without tasks."""
        return average_accuracy(self.tasks)

    @classmethod
    def joined(cls, params: int, made_by: Mapping[str, Any], parts: Iterable["Record"]) -> "Record":
        """What several records say of one variant."""
        records = list(parts)
        return cls(
            params=params,
            texts=tuple(text for record in records for text in record.texts),
            tasks=tuple(task for record in records for task in record.tasks),
            latency=next((record.latency for record in records if record.latency), None),
            memory=next((record.memory for record in records if record.memory), None),
            seconds=sum(record.seconds for record in records),
            made_by=records[0].made_by if records else made_by,
        )

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
        values = {**asdict(self), "made_by": dict(self.made_by)}
        return {**values, "ppl": self.ppl, "accuracy": self.accuracy}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Record":
        """The inverse of ``to_json``."""
        latency, memory = data["latency"], data["memory"]
        return cls(
            params=data["params"],
            texts=tuple(TextScore(**text) for text in data.get("texts", _older_text(data))),
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


def _older_text(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The perplexity of a record that an earlier version wrote, which did not say of what."""
    if data["ppl"] is None:
        return []
    unknown = {"split": None, "tokens": 0, "is_whole": False, "seqlen": 0}
    return [{"name": "text", "text": "a text that was not recorded", "ppl": data["ppl"], **unknown}]


def read_record(path: Path) -> Record | None:
    """What was measured of a variant and stored; None where nothing was.

    Raises ``DamagedError`` where that is not what was written there.
    """
    content = read_sealed(path, path.name)
    if content is None:
        return None
    if understood(path, lambda: key_of(content["identity"])) != path.stem:
        raise DamagedError(path, "it is of another variant")
    return understood(path, lambda: Record.from_json(content["record"]))
