"""What a study may look at: numbers that runs measure, by the words that a user types."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from pipeline.measure.intervals import Interval
from pipeline.measure.record import Memory, Part
from pipeline.report.compare.quantities import (
    DECODE,
    DECODE_MS,
    PEAK,
    PREFILL,
    PREFILL_MS,
    Quantity,
    percent_of_dense,
)
from pipeline.report.compare.records import ComparedRun, Measured, Value
from pipeline.report.compare.study import Goal
from pipeline.report.dense_and_pruned import BYTES_PER_MB
from pipeline.settings.core import Config
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.probe import ProbeConfig
from pipeline.studies.base import Outcome

COUNTED = "counted"
"""How what is not measured is known."""


@dataclass(frozen=True, slots=True)
class QuantityKind:
    """A quantity, of which there may be one for each text, task or workload."""

    name: str
    unit: str
    read: Callable[[ComparedRun, bool, str | None], Value | None]
    """Of the pruned model (true) or the dense one; None where it was not measured."""
    measured: Callable[[Config], Sequence[str]]
    """What a configuration measures it of, by name; none where it measures it of nothing."""
    asked_by: str
    """What to type to have it measured; empty where every run has it."""
    part_of: str = ""
    """What the second word names: text, task, workload; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Term:
    """A quantity of a run, as it was typed: "ppl wikitext2"."""

    kind: QuantityKind
    part: str | None = None

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{self.kind.name} {self.part}" if self.part else self.kind.name

    @property
    def of_dense(self) -> str:
        """What the dense model's is called in a trial's outcome."""
        return f"dense {self.text}"

    def of(self, run: ComparedRun, pruned: bool = True) -> Value | None:
        """The value; None where it was not measured."""
        return self.kind.read(run, pruned, self.part)

    def problem(self, config: Config) -> str | None:
        """Why runs of a configuration do not measure it; None where they do."""
        parts = self.kind.measured(config)
        if not parts:
            return f"no run measures {self.kind.name}; add {self.kind.asked_by}"
        if self.part and self.part not in parts:
            return (
                f"no run measures {self.kind.name} of {self.part!r}; allowed is "
                f"{', '.join(parts)}, or leave it out for {parts[0]}"
            )
        return None


def term_of(text: str) -> Term:
    """The quantity that a text names. Raises ``ValueError`` with what is allowed."""
    name, _, part = " ".join(text.split()).partition(" ")
    kind = KINDS.get(name)
    if kind is None:
        near = get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]}? Allowed" if near else "allowed"
        raise ValueError(f"{name!r} is nothing that runs measure; {hint}: {', '.join(KINDS)}")
    if part and not kind.part_of:
        raise ValueError(f"{name} is of the whole run; leave {part!r} out")
    return Term(kind, part or None)


def _accuracy(run: ComparedRun, pruned: bool, task: str | None) -> Value | None:
    if task is None:
        return run.accuracy(pruned)
    score = next((each for each in run.tasks(pruned) if each.task == task), None)
    return Value(score.accuracy * 100, score.stderr * 100, task) if score else None


def _perplexity(run: ComparedRun, pruned: bool, text: str | None) -> Value | None:
    if text is None:
        return run.perplexity(pruned)
    scores = _side(run, pruned).texts.values()
    score = next((each for each in scores if each.name == text and each.ppl is not None), None)
    return Value(score.ppl, None, score.protocol) if score and score.ppl is not None else None


def _timed(
    quantity: Quantity, run: ComparedRun, pruned: bool, workload: str | None
) -> Value | None:
    return quantity.of(run.at(workload), pruned)


def _times_dense(
    quantity: Quantity, run: ComparedRun, pruned: bool, workload: str | None
) -> Value | None:
    if not pruned:
        return Value(1.0, None, COUNTED, Interval(1.0, 1.0, 1.0))
    percent = percent_of_dense(quantity, run.at(workload))
    if percent is None:
        return None
    interval = percent.interval and percent.interval.times(0.01)
    return Value(percent.value / 100, None, percent.protocol, interval)


def _peak(run: ComparedRun, pruned: bool, _: str | None) -> Value | None:
    return PEAK.of(run, pruned)


def _kept(
    of: Callable[[Memory], float], run: ComparedRun, pruned: bool, _: str | None
) -> Value | None:
    memory = _side(run, pruned).memory
    return Value(of(memory), None, COUNTED) if memory else None


def _params(run: ComparedRun, pruned: bool, _: str | None) -> Value | None:
    params = run.params if pruned else run.total_params
    return None if params is None else Value(float(params), None, COUNTED)


def _ratio(run: ComparedRun, pruned: bool, _: str | None) -> Value | None:
    removed = (run.removed_percent or 0.0) if pruned else 0.0
    return Value(removed, None, COUNTED)


def _side(run: ComparedRun, pruned: bool) -> Measured:
    return run.pruned if pruned else run.dense


def _tasks(config: Config) -> list[str]:
    probe = config.of(ProbeConfig)
    return config.of(EvaluateConfig).tasks or (probe.tasks if probe.every else [])


def _texts(config: Config) -> list[str]:
    probe = config.of(ProbeConfig)
    probed = [Path(probe.text).name] if probe.every and probe.text else []
    return list(dict.fromkeys([*config.of(EvaluateConfig).sources, *probed]))


def _workloads(config: Config) -> list[str]:
    probe = config.of(ProbeConfig)
    return list(probe.workloads) if probe.every and probe.latency else []


def _always(_: Config) -> list[str]:
    return ["run"]


PROBE_LATENCY = "probe=latency"
TIMES: dict[Part, tuple[Quantity, Quantity]] = {
    "prefill": (PREFILL_MS, PREFILL),
    "decode": (DECODE_MS, DECODE),
}


def _kinds() -> Iterable[QuantityKind]:
    tasks = "evaluate=commonsense, or evaluate.tasks"
    yield QuantityKind("accuracy", "%", _accuracy, _tasks, tasks, "task")
    texts = "evaluate.text=FILE, or wikitext2"
    yield QuantityKind("ppl", "", _perplexity, _texts, texts, "text")
    for part, (time, speed) in TIMES.items():
        for name, unit, read in (
            (f"{part}_ms", "ms", partial(_timed, time)),
            (f"{part}_speedup", "times dense", partial(_times_dense, speed)),
        ):
            yield QuantityKind(name, unit, read, _workloads, PROBE_LATENCY, "workload")
    for name, unit, of in (
        ("weights_mb", "MB", lambda memory: memory.weights / BYTES_PER_MB),
        ("kv_cache_bytes", "bytes per token", lambda memory: memory.kv_cache_per_token),
    ):
        yield QuantityKind(name, unit, partial(_kept, of), _workloads, PROBE_LATENCY)
    yield QuantityKind("memory_mb", "MB", _peak, _workloads, PROBE_LATENCY)
    yield QuantityKind("params", "", _params, _always, "")
    yield QuantityKind("ratio", "%", _ratio, _always, "")


KINDS: dict[str, QuantityKind] = {kind.name: kind for kind in _kinds()}


@dataclass(frozen=True, slots=True)
class Objective:
    """A quantity, and which way is better."""

    term: Term
    is_higher_better: bool

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{'maximize' if self.is_higher_better else 'minimize'} {self.term.text}"

    @property
    def goal(self) -> Goal:
        """As it is shown."""
        return Goal(self.term.text, self.term.kind.unit, self.is_higher_better)

    def loss(self, value: float) -> float:
        """The value where less is better."""
        return self.goal.loss(value)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound for a quantity; by itself, or against the dense model's."""

    term: Term
    text: str
    """As it is typed."""
    is_least: bool
    """Whether the bound is a least value; else a greatest."""
    of_dense: bool
    factor: float
    """What the dense model's is multiplied by."""
    offset: float
    """What is added; the bound itself where it does not depend on the dense model."""

    def bound(self, outcome: Outcome) -> float:
        """The value that must not be passed."""
        dense = outcome[self.term.of_dense] if self.of_dense else 0.0
        return dense * self.factor + self.offset

    def excess(self, outcome: Outcome) -> float:
        """By how much it is missed, as a share of the bound; at most 0 where it is met."""
        bound, value = self.bound(outcome), outcome[self.term.text]
        missed = bound - value if self.is_least else value - bound
        return missed / max(abs(bound), 1e-9)


OBJECTIVE = re.compile(r"(?P<way>maximize|minimize)\s+(?P<term>.+)")
NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
CONSTRAINT = re.compile(
    rf"(?P<term>.+?)\s*(?P<sign><=|>=)\s*"
    rf"(?:(?P<number>{NUMBER})|(?P<model>dense)(?:\s*(?P<by>[-+*])\s*(?P<much>{NUMBER}))?)"
)


def objective_of(text: str) -> Objective:
    """What a text asks for. Raises ``ValueError`` with what is allowed."""
    found = OBJECTIVE.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f"{text!r} is wrong; allowed is maximize or minimize and what counts, e.g. "
            '"minimize ppl"'
        )
    return Objective(term_of(found["term"]), found["way"].startswith("max"))


def constraint_of(text: str) -> Constraint:
    """What a text demands. Raises ``ValueError`` with what is allowed."""
    found = CONSTRAINT.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f"{text!r} is wrong; allowed is QUANTITY, >= or <=, and a number or dense, e.g. "
            '"accuracy >= dense - 2", "ppl <= dense * 1.2", "decode_ms <= 8"'
        )
    factor, offset = 1.0, 0.0
    if found["number"]:
        offset = float(found["number"])
    elif found["by"]:
        much = float(found["much"])
        if found["by"].startswith("*"):
            factor = much
        else:
            offset = much if found["by"].startswith("+") else -much
    return Constraint(
        term_of(found["term"]),
        " ".join(text.split()),
        found["sign"].startswith(">"),
        found["model"] is not None,
        factor,
        offset,
    )
