"""A run's folder as plain values: how it stands, where it ended and what was measured there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import Json, read_json
from pipeline.measure.record import Latency, Memory, Record, TaskScore
from pipeline.pruning.records import StepRecord, read_steps
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.report.data import finite, mean_accuracy
from pipeline.settings.flat import flat

DONE = "done"
FOLDER_TEXTS = ("wikitext2",)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one model: the dense one or the pruned one."""

    evaluation: Record | None = None
    probe: Record | None = None

    @property
    def latency(self) -> Latency | None:
        """Prefill and decoding."""
        return self.probe.latency if self.probe else None

    @property
    def memory(self) -> Memory | None:
        """Bytes."""
        return self.probe.memory if self.probe else None

    @property
    def device(self) -> str | None:
        """Where the probe was measured."""
        return self.probe.made_by.get("device") if self.probe else None


@dataclass(frozen=True, slots=True)
class Value:
    """A number that was measured, and how: only values with the same protocol can be compared."""

    value: float
    stderr: float | None
    protocol: str


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
    pruning: PruningState | None = None
    """Where it ended, or as far as it came."""
    removed_percent: float | None = None
    total_params: int | None = None
    params: int | None = None
    dense: Measured = field(default_factory=Measured)
    pruned: Measured = field(default_factory=Measured)

    @property
    def is_done(self) -> bool:
        """Whether it reached its end; others are listed, and never drawn as points."""
        return self.state == DONE

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
        """The last part of ``model_path``."""
        return Path(self.model_path).name

    @property
    def device(self) -> str | None:
        """Where latency and memory were measured."""
        return self.pruned.device or self.dense.device

    def accuracy(self, pruned: bool = True) -> Value | None:
        """Mean accuracy in percent: of the evaluation, or of the probe without one."""
        source, record = self._record_with_tasks(pruned)
        if record is None or (mean := mean_accuracy(record.tasks)) is None:
            return None
        stderr = None if mean[1] is None else mean[1] * 100
        return Value(mean[0] * 100, stderr, _tasks_text(record.tasks, source))

    def tasks(self, pruned: bool = True) -> tuple[TaskScore, ...]:
        """The scores that ``accuracy`` is the mean of."""
        record = self._record_with_tasks(pruned)[1]
        return record.tasks if record else ()

    def perplexity(self, pruned: bool = True) -> Value | None:
        """On held-out text: of the evaluation, or of the probe without one."""
        side = self.pruned if pruned else self.dense
        is_evaluated = self.settings.get("evaluate.text") is not None and self.dense.evaluation
        section, record = ("evaluate", side.evaluation) if is_evaluated else ("probe", side.probe)
        if record is None or (ppl := finite(record.ppl)) is None:
            return None
        return Value(ppl, None, self._text(section))

    def _record_with_tasks(self, pruned: bool) -> tuple[str, Record | None]:
        side = self.pruned if pruned else self.dense
        if any(each.evaluation and each.evaluation.tasks for each in (self.dense, self.pruned)):
            return "evaluation", side.evaluation
        return "probe", side.probe

    def _text(self, section: str) -> str:
        text = str(self.settings.get(f"{section}.text"))
        name = "WikiText-2" if text in FOLDER_TEXTS else Path(text).name
        length = self.settings.get(f"{section}.seqlen")
        tokens = self.settings.get(f"{section}.text_tokens")
        most = f", {tokens:,} tokens at most" if tokens else ""
        return f"{name}, windows of {length}{most}"


def _tasks_text(tasks: Sequence[TaskScore], source: str) -> str:
    items = [task.items for task in tasks]
    if len(tasks) == 1:
        return f"{tasks[0].task}, {items[0]:,} items, {source}"
    span = f"{items[0]:,}" if len(set(items)) == 1 else f"{min(items):,} to {max(items):,}"
    names = ", ".join(task.task for task in tasks)
    return f"mean of {names}, {span} items each, {source}"


def read_run(folder: Path) -> ComparedRun:
    """Read what is in ``folder``. Raises ``ConfigError`` where it is no run's folder."""
    owner = _read(folder / "run.json")
    if not isinstance(owner.get("config"), dict):
        raise ConfigError([f"{folder}: is no run's folder, it has no run.json"])
    summary, evaluation = _read(folder / "summary.json"), _read(folder / "evaluation.json")
    measured = summary.get("measured") or {}
    error = summary.get("error")
    run = ComparedRun(
        name=folder.name,
        folder=str(folder),
        state=summary.get("status", "unfinished"),
        error=one_line(error) if error else None,
        settings=flat(_configuration(folder) or owner["config"]),
        removed_percent=summary.get("ratio_percent") or None,
        total_params=summary.get("total_params"),
        params=summary.get("params"),
        dense=Measured(_record(evaluation.get("dense")), _record(measured.get("dense"))),
        pruned=Measured(_record(evaluation.get("pruned")), _record(measured.get("pruned"))),
    )
    return _with_pruning(run, folder, summary.get("shape"))


def missing_run(folder: Path, overrides: Sequence[str]) -> ComparedRun:
    """A run that a sweep lists and that is not there."""
    values = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    settings: dict[str, Any] = {key: _parsed(value) for key, value in values.items()}
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
