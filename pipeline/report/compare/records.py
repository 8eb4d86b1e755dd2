"""A run's folder as plain values: how it stands, where it ended and what was measured there."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import ConfigError
from pipeline.files import Json, read_json
from pipeline.measure.intervals import Interval
from pipeline.measure.record import Latency, Memory, Record, TaskScore, TextScore, tasks_protocol
from pipeline.pruning.origin import Origin
from pipeline.pruning.records import StepRecord, read_steps
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.report.data import finite, mean_accuracy
from pipeline.settings.core import DEFAULT_METHOD
from pipeline.settings.flat import flat
from pipeline.store.run_folder import kept_files

DONE = "done"
OLDER: dict[str, Any] = {"prune.method": DEFAULT_METHOD, "model.bos": "auto"}
"""Settings that configurations of earlier versions do not name."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one model: the dense one or the pruned one."""

    evaluations: tuple[Record, ...] = ()
    """Each of other settings; the last one first."""
    probe: Record | None = None
    workload: str | None = None
    """Whose latency is meant; None: the main one's."""

    @property
    def texts(self) -> dict[str, TextScore]:
        """Perplexities by how they were measured, those of evaluations first."""
        scores = [score for record in self._records for score in record.texts]
        return _by_protocol((score.protocol, score) for score in scores if finite(score.ppl))

    @property
    def tasks(self) -> dict[str, tuple[TaskScore, ...]]:
        """Scores by how they were measured; those of the probe only where nothing else has any."""
        evaluated = [record.tasks for record in self.evaluations if record.tasks]
        if not evaluated and self.probe and self.probe.tasks:
            evaluated = [self.probe.tasks]
        return _by_protocol((tasks_protocol(tasks), tasks) for tasks in evaluated)

    @property
    def _records(self) -> list[Record]:
        return [*self.evaluations, *([self.probe] if self.probe else [])]

    @property
    def latency(self) -> Latency | None:
        """Prefill and decoding of the workload that is meant."""
        return self.probe.latency_of(self.workload) if self.probe else None

    @property
    def workloads(self) -> tuple[str, ...]:
        """All that were timed."""
        return tuple(each.workload for each in self.probe.latencies) if self.probe else ()

    @property
    def memory(self) -> Memory | None:
        """Bytes."""
        return self.probe.memory if self.probe else None

    @property
    def device(self) -> str | None:
        """Where the probe was measured."""
        return self.probe.made_by.get("device") if self.probe else None


def _by_protocol(measured: Iterable[tuple[str, T]]) -> dict[str, T]:
    """The first of each protocol."""
    found: dict[str, T] = {}
    for protocol, value in measured:
        found.setdefault(protocol, value)
    return found


@dataclass(frozen=True, slots=True)
class Value:
    """A number that was measured, and how: only values with the same protocol can be compared."""

    value: float
    stderr: float | None
    protocol: str
    interval: Interval | None = None
    """Of a time: from where to where it may be."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """From where to where it may be: one standard error down and up, or the interval."""
        if self.interval:
            return self.interval.ends
        if self.stderr is None:
            return None
        return self.value - self.stderr, self.value + self.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run. What is not known is None or empty."""

    name: str
    folder: str
    state: str
    """done, or what it is instead: failed, running, missing, ..."""
    error: str | None = None
    """In one line."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The configuration by dotted keys."""
    model: str = ""
    """What the run calls its dense model; empty where it does not say."""
    origin: Origin | None = None
    """What the dense model was pruned from, where it was pruned before."""
    pruning: PruningState | None = None
    """Where it ended, or as far as it came."""
    removed_percent: float | None = None
    total_params: int | None = None
    params: int | None = None
    dense: Measured = field(default_factory=Measured)
    pruned: Measured = field(default_factory=Measured)
    """The model at the end of the run: where it was recovered, after that."""
    before_recovery: Measured | None = None
    """The pruned model as it was before it was recovered; None where it was not."""
    preferred: tuple[str, ...] = ()
    """Ways to measure that are shown where there are several: see ``alike``."""

    def at(self, workload: str | None) -> "ComparedRun":
        """With the latency of a workload."""
        dense, pruned = (replace(side, workload=workload) for side in (self.dense, self.pruned))
        return replace(self, dense=dense, pruned=pruned)

    @property
    def is_done(self) -> bool:
        """Whether it reached its end; others are listed, and never drawn as points."""
        return self.state == DONE

    def active_params(self, *, pruned: bool) -> int | None:
        """Parameters that one token passes; None where it is no mixture of experts."""
        if self.pruning is None or not self.pruning.shape.has_mixtures:
            return None
        state = self.pruning if pruned else PruningState.dense(self.pruning.shape)
        return state.active_params

    @property
    def target_percent(self) -> float | None:
        """What was to be removed."""
        return self.settings.get("prune.target_ratio")

    @property
    def model_path(self) -> str:
        """Hub id or folder."""
        return str(self.settings.get("model.path", ""))

    @property
    def model_name(self) -> str:
        """The last part of ``model_path``; of a model that was pruned before what it says."""
        return self.model if self.origin else Path(self.model_path).name

    def of_origin(self, *, pruned: bool) -> str:
        """What is gone of the model at the start, in words; empty where that is the dense one."""
        params = self.params if pruned else self.total_params
        if self.origin is None or params is None:
            return ""
        return f"{self.origin.removed_percent(params):.1f} % of {self.origin.name}"

    @property
    def device(self) -> str | None:
        """Where latency and memory were measured."""
        return self.pruned.device or self.dense.device

    def accuracy(self, pruned: bool = True) -> Value | None:
        """Mean accuracy in percent: of an evaluation, or of the probe without one."""
        protocol, tasks = self._chosen((self.pruned if pruned else self.dense).tasks)
        if tasks is None or (mean := mean_accuracy(tasks)) is None:
            return None
        return Value(mean[0] * 100, None if mean[1] is None else mean[1] * 100, protocol)

    def tasks(self, pruned: bool = True) -> tuple[TaskScore, ...]:
        """The scores that ``accuracy`` is the mean of."""
        return self._chosen((self.pruned if pruned else self.dense).tasks)[1] or ()

    def perplexity(self, pruned: bool = True, protocol: str | None = None) -> Value | None:
        """On text that decided nothing; where ``protocol`` is given, measured in that way."""
        scores = (self.pruned if pruned else self.dense).texts
        if protocol is None:
            protocol, _ = self._chosen(scores)
        score = scores.get(protocol)
        if score is None or score.ppl is None:
            return None
        return Value(score.ppl, None, protocol)

    def _chosen(self, measured: Mapping[str, T]) -> tuple[str, T | None]:
        """What was measured in the preferred way; else the last that was measured."""
        preferred = next((each for each in self.preferred if each in measured), None)
        protocol = preferred or next(iter(measured), "")
        return protocol, measured.get(protocol)


def main_protocol(runs: Sequence[ComparedRun], protocols: Iterable[str]) -> str | None:
    """The way in which most values were measured, the preferred one of equals; None of nothing."""
    counted = Counter(protocols)
    places = {protocol: -place for place, protocol in enumerate(runs[0].preferred)} if runs else {}
    return max(counted, key=lambda each: (counted[each], places.get(each, -1)), default=None)


def alike(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The runs with a preference for how most of them were measured; the larger one of equals."""
    done = [run.pruned for run in runs if run.is_done]
    amounts: dict[str, int] = {}
    counted: Counter[str] = Counter()
    for side in done:
        amounts |= {protocol: score.tokens for protocol, score in side.texts.items()}
        amounts |= {way: sum(task.items for task in tasks) for way, tasks in side.tasks.items()}
        counted.update([*side.texts, *side.tasks])
    ordered = sorted(counted, key=lambda protocol: (-counted[protocol], -amounts[protocol]))
    return [replace(run, preferred=tuple(ordered)) for run in runs]


def read_run(folder: Path) -> ComparedRun:
    """Read what is in ``folder``. Raises ``ConfigError`` where it is no run's folder."""
    owner = _read(folder / "run.json")
    if not isinstance(owner.get("config"), dict):
        raise ConfigError([f"{folder}: is no run's folder, it has no run.json"])
    summary = _read(folder / "summary.json")
    written = kept_files(folder, "evaluation.json") or [folder / "evaluation.json"]
    evaluations = [_read(path) for path in written]
    measured = summary.get("measured") or {}
    error = summary.get("error")
    settings = OLDER | flat(_configuration(folder) or owner["config"])
    run = ComparedRun(
        name=folder.name,
        folder=str(folder),
        state=summary.get("status", "unfinished"),
        error=one_line(error) if error else None,
        settings=settings,
        model=summary.get("model") or "",
        origin=Origin.from_json(summary.get("origin")),
        removed_percent=summary.get("ratio_percent") or None,
        total_params=summary.get("total_params"),
        params=summary.get("params"),
        dense=_measured("dense", evaluations, measured),
        pruned=_measured("pruned", evaluations, measured),
    )
    if settings.get("recover.steps"):
        run = _recovered(run, _measured("recovered", evaluations, {}))
    return _with_pruning(run, folder, summary.get("shape"))


def _recovered(run: ComparedRun, recovered: Measured) -> ComparedRun:
    """With what was evaluated after recovery, which changes neither size nor speed."""
    probe = run.pruned.probe and replace(run.pruned.probe, texts=(), tasks=())
    return replace(run, pruned=replace(recovered, probe=probe), before_recovery=run.pruned)


def missing_run(folder: Path, overrides: Sequence[str]) -> ComparedRun:
    """A run that a sweep lists and that is not there."""
    values = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    settings: dict[str, Any] = {key: _parsed(value) for key, value in values.items()}
    if "prune" in settings:  # the option of a method has its name
        settings["prune.method"] = settings.pop("prune")
    return ComparedRun(
        name=folder.name,
        folder=str(folder),
        state="missing",
        error="its folder is not there",
        settings=settings,
    )


def one_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _read(path: Path) -> dict[str, Json]:
    """A file's object; empty where there is none that can be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _configuration(folder: Path) -> dict[str, Json]:
    """What the last launch wrote; run.json has the first one's, which may have measured less."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built
    try:
        content = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), loader)  # noqa: S506 - a safe one
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _measured(side: str, evaluations: Iterable[Json], summary: Json) -> Measured:
    records = [_record(each.get(side)) for each in evaluations]
    return Measured(tuple(filter(None, records)), _record(summary.get(side)))


def _record(data: Json) -> Record | None:
    if not data:
        return None
    return Record.from_json(data)


def _parsed(value: str) -> Json:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _with_pruning(run: ComparedRun, folder: Path, written: Json) -> ComparedRun:
    """With the state it ended in; of an older run, whose shape is not known, without one."""
    if not written:
        return run
    shape = ModelShape.from_json(written)
    state = _state(folder, shape)
    return replace(
        run,
        pruning=state,
        total_params=shape.total_params,
        params=state.params,
        removed_percent=state.ratio_percent,
    )


def _state(folder: Path, shape: ModelShape) -> PruningState:
    pruning = _read(folder / "pruning_config.json")
    if pruning:
        return PruningState.from_pruning_config(shape, pruning)
    state = PruningState.dense(shape)
    for step in _steps(folder / "steps.jsonl"):
        state = state.without(step.chosen)
    return state


def _steps(path: Path) -> list[StepRecord]:
    return read_steps(path) if path.exists() else []
