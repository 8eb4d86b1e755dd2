"""What was measured of one state of a model. Plain values, JSON in and out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.errors import DamagedError
from pipeline.files import key_of, read_sealed, understood
from pipeline.measure.intervals import Interval
from pipeline.pruning.records import Measured

DEFAULT_WORKLOAD = "default"
Part = Literal["prefill", "decode"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Of a generation: one pass over the prompts, and then one token at a time."""
Way = Literal["graphs", "turns", "eager", "earlier"]
GRAPHS, TURNS, EAGER, EARLIER = get_args(Way)
WAYS: dict[str, str] = {
    GRAPHS: "CUDA graphs",
    TURNS: "in turns with the dense model",
    EAGER: "without CUDA graphs or turns",
    EARLIER: "as earlier versions did",
}
"""How times were taken, in words. Times that were taken in different ways are not compared."""
BOS = {None: "", "every": ", bos before each", "never": ", no bos"}
"""What was done with beginning-of-sequence tokens, in words that follow what was read."""
OTHER_PROCESS = 0.01
"""The same model may take so much more or less in another process: placement in memory."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated measurements of one operation, after warm-up."""

    median_ms: float
    p95_ms: float
    repeats: int
    min_ms: float | None = None
    """None in records of earlier versions, as the next two."""
    low_ms: float | None = None
    """With ``high_ms``: from where to where the true median is, with 95 %."""
    high_ms: float | None = None

    @property
    def interval(self) -> Interval:
        """The median, and how sure it is."""
        if self.low_ms is None or self.high_ms is None:
            spread = self.p95_ms / self.median_ms if self.median_ms > 0 else 1.0
            return Interval(self.median_ms, self.median_ms / spread, self.p95_ms)
        return Interval(self.median_ms, self.low_ms, self.high_ms)


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How many times as fast as the dense model, both timed in turns in one process."""

    prefill: Interval
    decode: Interval
    dense_prefill: Timing
    """The dense model's time in those turns."""
    dense_decode: Timing

    def of(self, part: Part) -> Interval:
        """Of prefill or decoding."""
        return self.prefill if part == "prefill" else self.decode

    def dense(self, part: Part) -> Timing:
        """The dense model's time."""
        return self.dense_prefill if part == "prefill" else self.dense_decode

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SpeedUp":
        """From its fields."""
        return cls(
            Interval(**data["prefill"]),
            Interval(**data["decode"]),
            Timing(**data["dense_prefill"]),
            Timing(**data["dense_decode"]),
        )


@dataclass(frozen=True, slots=True)
class Floor:
    """The least time that the device allows, by its measured speed of copying and multiplying."""

    prefill_ms: float
    decode_ms: float

    def of(self, part: Part) -> float:
        """Of prefill or decoding, in ms."""
        return self.prefill_ms if part == "prefill" else self.decode_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Prefill and decoding of one batch, with a KV cache."""

    workload: str = DEFAULT_WORKLOAD
    """What the configuration calls it."""
    batch: int
    prompt_tokens: int
    output_tokens: int
    prefill: Timing
    """One forward pass over the prompts, ``[batch, prompt_tokens]``."""
    decode: Timing
    """One token for every sequence of the batch, from the cache."""
    way: Way = EARLIER
    why: str | None = None
    """What kept a GPU's graphs from being used."""
    speed_up: SpeedUp | None = None
    """Against the dense model, where both were timed in turns."""
    floor: Floor | None = None
    threads: int | None = None
    """Of a CPU."""
    load: float | None = None
    """Processes that wanted to run in the minute before, as the system counts them."""
    taken: str = ""
    """When, in ISO 8601."""

    def timing(self, part: Part) -> Timing:
        """Of prefill or decoding."""
        return self.prefill if part == "prefill" else self.decode

    def tokens_per_s(self, part: Part) -> float:
        """Tokens of the whole batch."""
        tokens = self.batch * (self.prompt_tokens if part == "prefill" else 1)
        median_ms = self.timing(part).median_ms
        return tokens / median_ms * 1e3 if median_ms > 0 else math.inf

    def floor_share(self, part: Part) -> float | None:
        """Which fraction of its time the device needs in any case."""
        median_ms = self.timing(part).median_ms
        return self.floor.of(part) / median_ms if self.floor and median_ms > 0 else None

    @property
    def protocol(self) -> str:
        """What must be equal for times to be compared, beside the device; in words."""
        what = f"{self.batch} × {self.prompt_tokens} + {self.output_tokens} tokens"  # noqa: RUF001
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{what}, {WAYS[self.way]}{threads}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the speeds that readers want."""
        speeds = {f"{part}_tokens_per_s": self.tokens_per_s(part) for part in PARTS}
        return {**asdict(self), **speeds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Latency":
        """The inverse of ``to_json``; of earlier versions' records, too."""
        own: dict[str, Any] = {
            name: data[name] for name in cls.__dataclass_fields__ if name in data
        }
        own |= {part: Timing(**data[part]) for part in PARTS}
        if speeds := data.get("speed_up"):
            own["speed_up"] = SpeedUp.from_json(speeds)
        if floor := data.get("floor"):
            own["floor"] = Floor(**floor)
        return cls(**own)


def speed_up(dense: Latency | None, pruned: Latency | None, part: Part) -> Interval | None:
    """How many times as fast as the dense model; None where they were not timed alike.

    By turns where they were taken; else by the two times, and by how much a process may differ.
    """
    if pruned is None:
        return None
    if pruned.speed_up:
        return pruned.speed_up.of(part)
    if dense is None or dense.protocol != pruned.protocol or dense.way == TURNS:
        return None
    before, after = dense.timing(part).interval, pruned.timing(part).interval
    if before.low <= 0 or after.low <= 0:
        return None
    return before.over(after).widened(OTHER_PROCESS)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes."""

    weights: int
    """All parameters and buffers of the model as it is, a tied one once."""
    kv_cache_per_token: int
    """Keys and values of one token of one sequence, over all attentions that are left."""
    peak: int | None
    """All tensors at one time, weights among them, at most during the latency measurement. None in
    files of runs that could not tell."""


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
    bos: Literal["every", "never"] | None = None
    """Whether every window began with a beginning-of-sequence token, or the tokenizer's own was
    left out; None where the text was cut as the tokenizer gives it."""

    @property
    def protocol(self) -> str:
        """Text, split, tokens and windows, in words."""
        if not self.tokens:
            return self.text
        title = f"{self.text} {self.split}" if self.split else self.text
        count = f"{self.tokens:,}" if self.is_whole else f"first {self.tokens:,}"
        return f"{title}, {count} tokens, windows of {self.seqlen:,}{BOS[self.bos]}"


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
    acc_items: str | None = None
    """What ``acc`` is the mean of: 1 for an item that was right, else 0, in the order of the data.
    For pairing models item by item. None in records of earlier versions."""
    acc_norm_items: str | None = None
    """The same of ``acc_norm``."""
    bos: Literal["every", "never"] | None = None
    """Whether a beginning-of-sequence token was put before every text, or the tokenizer's own left
    out; None where texts are as the tokenizer gives them."""

    @property
    def accuracy(self) -> float:
        """acc_norm where it is reported, else acc: as the paper averages."""
        return self.acc if self.acc_norm is None else self.acc_norm

    @property
    def stderr(self) -> float:
        """Standard error of ``accuracy``."""
        return self.acc_stderr if self.acc_norm_stderr is None else self.acc_norm_stderr

    @property
    def right_items(self) -> str | None:
        """What ``accuracy`` is the mean of, a 0 or 1 for each item; None where it was not kept."""
        return self.acc_items if self.acc_norm is None else self.acc_norm_items


def average_accuracy(tasks: Sequence[TaskScore]) -> float | None:
    """Mean accuracy over tasks (a fraction); None without tasks."""
    return sum(task.accuracy for task in tasks) / len(tasks) if tasks else None


def tasks_protocol(tasks: Sequence[TaskScore]) -> str:
    """Which tasks an average is of, and how many items they have, in words."""
    items, bos = [task.items for task in tasks], BOS[tasks[0].bos]
    if len(tasks) == 1:
        return f"{tasks[0].task}, {items[0]:,} items{bos}"
    span = f"{items[0]:,}" if len(set(items)) == 1 else f"{min(items):,} to {max(items):,}"
    return f"mean of {', '.join(task.task for task in tasks)}, {span} items each{bos}"


@dataclass(frozen=True, slots=True)
class Record:
    """Everything measured of one variant. What was not asked for is None or empty."""

    params: int
    """Parameters, counted as everywhere: see ``PruningState.params``."""
    texts: tuple[TextScore, ...]
    tasks: tuple[TaskScore, ...]
    latencies: tuple[Latency, ...]
    """One for each workload, the main one first."""
    memory: Memory | None
    """The peak is the main workload's."""
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

    @property
    def latency(self) -> Latency | None:
        """Of the main workload."""
        return self.latencies[0] if self.latencies else None

    def latency_of(self, workload: str | None) -> Latency | None:
        """Of a workload by its name; None names the main one."""
        if workload is None:
            return self.latency
        return next((each for each in self.latencies if each.workload == workload), None)

    @classmethod
    def joined(cls, params: int, made_by: Mapping[str, Any], parts: Iterable["Record"]) -> "Record":
        """What several records say of one variant."""
        records = list(parts)
        return cls(
            params=params,
            texts=tuple(text for record in records for text in record.texts),
            tasks=tuple(task for record in records for task in record.tasks),
            latencies=tuple(latency for record in records for latency in record.latencies),
            memory=next((record.memory for record in records if record.memory), None),
            seconds=sum(record.seconds for record in records),
            made_by=records[0].made_by if records else made_by,
        )

    def of_step(self) -> Measured:
        """What a line of ``steps.jsonl`` has of it."""
        return Measured(
            self.ppl,
            self.accuracy,
            self.latency.to_json() if self.latency else None,
            asdict(self.memory) if self.memory else None,
            [each.to_json() for each in self.latencies] if len(self.latencies) > 1 else (),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the averages that readers want."""
        return {
            **asdict(self),
            "latency": self.latency.to_json() if self.latency else None,
            "latencies": [latency.to_json() for latency in self.latencies],
            "made_by": dict(self.made_by),
            "ppl": self.ppl,
            "accuracy": self.accuracy,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Record":
        """The inverse of ``to_json``."""
        memory = data["memory"]
        return cls(
            params=data["params"],
            texts=tuple(TextScore(**text) for text in data.get("texts", _older_text(data))),
            tasks=tuple(TaskScore(**task) for task in data["tasks"]),
            latencies=tuple(map(Latency.from_json, data.get("latencies", _older_latency(data)))),
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


def _older_latency(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a record that an earlier version wrote, which knew one workload."""
    return [data["latency"]] if data.get("latency") else []


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
