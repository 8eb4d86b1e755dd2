"""What is measured of a variant: perplexity of a text, accuracy on tasks, latency and memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.measure.accuracy import (
    local_files,
    missing_data,
    no_first_token,
    too_long_choices,
    wrong_rows,
)
from pipeline.measure.text import Text
from pipeline.measure.workloads import LatencySettings
from pipeline.models.digests import Digest, bos_recipe, tokenizer_digest
from pipeline.models.source import ModelSource


@dataclass(frozen=True, slots=True)
class DataSources:
    """Where texts and tasks are read from, and how; it does not change what is measured."""

    data_dir: Path | None
    """Folder of local copies; None: the hub."""
    task_files: Mapping[str, Path]
    """The user's own tasks."""
    batch_size: int | None = None
    """Sequences of tasks that are scored together; None takes what suits the device."""


@dataclass(frozen=True, slots=True)
class MeasurementProtocol:
    """Settings of one kind of measurement, e.g. of the probe after every step."""

    texts: tuple[Text, ...] = ()
    """Texts for perplexity."""
    tasks: tuple[str, ...] = ()
    """Tasks for accuracy."""
    items: int | None = None
    """Items of each task at most; None takes all."""
    workloads: tuple[LatencySettings, ...] = ()
    """What is timed, the main one first; without any, memory is not measured either."""

    @property
    def reads_text(self) -> bool:
        """Whether anything is tokenised."""
        return bool(self.texts or self.tasks)

    def parts(self) -> Iterator["MeasurementProtocol"]:
        """Each text, each task and each workload alone: each is measured once, whoever asks."""
        for text in self.texts:
            yield MeasurementProtocol(texts=(text,))
        for task in self.tasks:
            yield MeasurementProtocol(tasks=(task,), items=self.items)
        for workload in self.workloads:
            yield MeasurementProtocol(workloads=(workload,))

    def missing(self, sources: DataSources, section: str) -> list[str]:
        """What keeps this from being measured, in words that name the key in ``section``."""
        problems = [
            f"{section}.tasks: {problem}"
            for problem in missing_data(self.tasks, sources.data_dir, sources.task_files)
        ]
        for text in self.texts:
            problems += [f"{section}.text: {problem}" for problem in text.missing(sources.data_dir)]
        return problems

    def wrong(self, sources: DataSources, section: str) -> list[str]:
        """What is wrong in local files that are all there, in words that name the key."""
        rows = wrong_rows(self.tasks, sources.data_dir, self.items, sources.task_files)
        problems = [f"{section}.tasks: {problem}" for problem in rows]
        for text in self.texts:
            if text.file(sources.data_dir):
                try:
                    text.rows(sources.data_dir)
                except ConfigError as error:
                    problems += [f"{section}.text: {problem}" for problem in error.problems]
        return problems

    def unfit(self, sources: DataSources, model: ModelSource, section: str) -> list[str]:
        """What of local texts and tasks does not fit the model, in words that name the key.

        Reads what ``wrong`` finds nothing wrong with. Raises ``ConfigError`` where there is no
        tokenizer that can be read.
        """
        if not self.reads_text:
            return []
        tokenizer, problems = model.tokenizer, []
        for text in self.texts:
            if text.file(sources.data_dir):
                rows = text.rows(sources.data_dir)
                begin = model.beginning.window
                wrong = text.problem(tokenizer, rows, model.vocabulary_size, begin)
                problems += [f"{section}.text: {text.source}: {wrong}"] if wrong else []
        own = {name: path for name, path in sources.task_files.items() if name in self.tasks}
        choices = too_long_choices(tokenizer, own, self.items, model.context_length)
        first = no_first_token(tokenizer) if self.tasks else None
        of_tasks = [*([first] if first else []), *choices]
        return problems + [f"{section}.tasks: {problem}" for problem in of_tasks]

    def identity(self, sources: DataSources, model: ModelSource, digest: Digest) -> dict[str, Any]:
        """What decides the numbers: settings; texts, tasks and tokenizer by their content."""
        return {
            "texts": [_identity_of(text, sources.data_dir, digest) for text in self.texts],
            "tasks": {name: _task_digest(name, sources, digest) for name in self.tasks},
            "items": self.items if self.tasks else None,
            "latency": [workload.identity() for workload in self.workloads] or None,
            "tokenizer": tokenizer_digest(model, digest) if self.reads_text else None,
            **(bos_recipe(model) if self.reads_text else {}),
        }


def _identity_of(text: Text, data_dir: Path | None, digest: Digest) -> dict[str, Any]:
    path = text.file(data_dir)
    return {
        "text": digest(path) if path else text.source,
        "most_tokens": text.most_tokens,
        "seqlen": text.seqlen,
    }


def _task_digest(name: str, sources: DataSources, digest: Digest) -> str | None:
    """Of the task's file; None where it comes from the hub."""
    if name in sources.task_files:
        return digest(sources.task_files[name])
    if sources.data_dir is None:
        return None
    return digest(local_files(name, sources.data_dir)[0])
