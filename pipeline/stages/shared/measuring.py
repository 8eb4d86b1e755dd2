"""Measuring states of the model, each once: for the probe after every step, and at the end."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files import encode, key_of, publish, read_json, sha256_of_file
from pipeline.measure.accuracy import TaskSet, local_files, missing_data
from pipeline.measure.latency import LatencySettings, measure_latency
from pipeline.measure.memory import measure_memory
from pipeline.measure.record import Record
from pipeline.measure.text import missing_text, text_file, text_rows, text_windows
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.state import PruningState
from pipeline.scoring.one_pass import perplexity
from pipeline.scoring.perplexity import Windows
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.probe import ProbeConfig


@dataclass(frozen=True, slots=True)
class What:
    """What is measured of a state."""

    text: str | None
    text_tokens: int | None
    seqlen: int
    tasks: tuple[str, ...]
    items: int | None
    latency: LatencySettings | None

    @classmethod
    def of_probe(cls, config: Config) -> "What":
        """What ``probe`` measures after a step."""
        probe = config.of(ProbeConfig)
        latency = LatencySettings(
            probe.batch, probe.prompt_tokens, probe.output_tokens, probe.repeats, probe.warmup
        )
        return cls(
            probe.text,
            probe.text_tokens,
            probe.seqlen,
            tuple(probe.tasks),
            probe.items,
            latency if probe.latency else None,
        )

    @classmethod
    def of_evaluation(cls, config: Config) -> "What":
        """What ``evaluate`` measures at the end."""
        evaluate = config.of(EvaluateConfig)
        tasks = tuple(evaluate.tasks)
        return cls(
            evaluate.text, evaluate.text_tokens, evaluate.seqlen, tasks, evaluate.limit, None
        )

    def files(self, config: Config) -> dict[str, Path]:
        """Every local file that is read, by what it is for."""
        data_dir, task_files = sources(config)
        files = {name: task_files[name] for name in self.tasks if name in task_files}
        if data_dir:
            rest = [name for name in self.tasks if name not in files]
            files |= {name: local_files(name, data_dir)[0] for name in rest}
        if self.text and (path := text_file(self.text, data_dir)):
            files["text"] = path
        return files

    def missing(self, config: Config, section: str) -> list[str]:
        """What keeps this from being measured, in words that name the key."""
        data_dir, task_files = sources(config)
        problems = [
            f"{section}.tasks: {problem}"
            for problem in missing_data(self.tasks, data_dir, task_files)
        ]
        if self.text:
            problems += [f"{section}.text: {p}" for p in missing_text(self.text, data_dir)]
        return problems

    def recipe(
        self, config: Config, digest: Callable[[Path], str] = sha256_of_file
    ) -> dict[str, Any]:
        """What decides the numbers: settings, and local files by their content (SHA-256)."""
        digests = {name: digest(path) for name, path in self.files(config).items()}
        from_hub = {"text": self.text} if self.text and "text" not in digests else {}
        settings = {key: value for key, value in asdict(self).items() if key != "text"}
        return {**settings, **from_hub, "tasks": list(self.tasks), "files": digests}


def sources(config: Config) -> tuple[Path | None, dict[str, Path]]:
    """Folder of local data, and the user's own tasks."""
    evaluate = config.of(EvaluateConfig)
    data_dir = Path(evaluate.data_dir) if evaluate.data_dir else None
    return data_dir, {name: Path(path) for name, path in evaluate.task_files.items()}


class Measurements:
    """Records of states, from disk where they are there, else measured on the live model."""

    def __init__(self, config: Config, inputs: Inputs, what: What) -> None:
        self.config, self.inputs, self.what = config, inputs, what

    def of(self, state: PruningState) -> Record:
        """The record of ``state``."""
        identity = self._identity(state)
        path = self.inputs.records / f"{key_of(identity)}.json"
        try:
            return Record.from_json(read_json(path)["record"])
        except FileNotFoundError:
            record = self._measure(self.inputs.live.at(state))
        publish(path, encode({"identity": identity, "record": record.to_json()}))
        self.inputs.listener.on_measured(record.seconds)
        return record

    def _measure(self, model: PrunableModel) -> Record:
        started = time.monotonic()
        ppl = perplexity(model, self._windows) if self._windows else None
        tasks = self._tasks.evaluate(model, self._tokenizer) if self._tasks else ()
        latency, memory = None, None
        if self.what.latency:
            latency, peak_bytes = measure_latency(model, self.what.latency)
            memory = measure_memory(model, peak_bytes)
        return Record(
            params=sum(parameter.numel() for parameter in model.model.parameters()),
            ppl=ppl,
            tasks=tuple(tasks),
            latency=latency,
            memory=memory,
            seconds=time.monotonic() - started,
            made_by=self.inputs.made_by,
        )

    def _identity(self, state: PruningState) -> Mapping[str, Any]:
        """What decides a record: the model in this state, what is measured, on which device."""
        model = self.config.model
        return {
            "weights": self.inputs.weights,
            "weight_reorder": self.config.prune.weight_reorder,
            "state": state.identity(),
            "dtype": model.dtype,
            "attn_implementation": model.attn_implementation,
            "device": [model.device, self.inputs.made_by["device"]],
            "what": self._recipe,
        }

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        return self.what.recipe(self.config)

    @cached_property
    def _tokenizer(self) -> Any:
        return self.inputs.source.tokenizer

    @cached_property
    def _windows(self) -> Windows | None:
        if self.what.text is None:
            return None
        rows = text_rows(self.what.text, sources(self.config)[0])
        return text_windows(self._tokenizer, rows, self.what.seqlen, self.what.text_tokens)

    @cached_property
    def _tasks(self) -> TaskSet | None:
        if not self.what.tasks:
            return None
        data_dir, task_files = sources(self.config)
        batch_size = self.config.of(EvaluateConfig).batch_size
        return TaskSet(self.what.tasks, data_dir, self.what.items, batch_size, task_files)
