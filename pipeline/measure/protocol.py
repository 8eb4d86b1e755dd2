"""What is measured of a variant: perplexity of a text, accuracy on tasks, latency and memory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
from pipeline.measure.latency import LatencySettings
from pipeline.measure.text import missing_text, text_file, text_problem, text_rows
from pipeline.models.digests import Digest, tokenizer_digest
from pipeline.models.source import ModelSource


@dataclass(frozen=True, slots=True)
class DataSources:
    """Where texts and tasks are read from, and how; it does not change what is measured."""

    data_dir: Path | None
    """Folder of local copies; None: the hub."""
    task_files: Mapping[str, Path]
    """The user's own tasks."""
    batch_size: int = 16
    """Sequences of tasks that are scored together, fewer where memory runs out."""


@dataclass(frozen=True, slots=True)
class MeasurementProtocol:
    """Settings of one kind of measurement, e.g. of the probe after every step."""

    text: str | None
    """Text for perplexity: a file, or wikitext2; None leaves perplexity out."""
    text_tokens: int | None
    """Tokens of it at most; None takes all."""
    seqlen: int
    """Tokens in a window of it."""
    tasks: tuple[str, ...]
    """Tasks for accuracy."""
    items: int | None
    """Items of each task at most; None takes all."""
    latency: LatencySettings | None
    """None: neither latency nor memory is measured."""

    @property
    def reads_text(self) -> bool:
        """Whether anything is tokenised."""
        return self.text is not None or bool(self.tasks)

    def files(self, sources: DataSources) -> dict[str, Path]:
        """Every local file that is read, by what it is for."""
        own, data_dir = sources.task_files, sources.data_dir
        files = {name: own[name] for name in self.tasks if name in own}
        if data_dir:
            rest = [name for name in self.tasks if name not in files]
            files |= {name: local_files(name, data_dir)[0] for name in rest}
        if self.text and (path := text_file(self.text, data_dir)):
            files["text"] = path
        return files

    def missing(self, sources: DataSources, section: str) -> list[str]:
        """What keeps this from being measured, in words that name the key in ``section``."""
        problems = [
            f"{section}.tasks: {problem}"
            for problem in missing_data(self.tasks, sources.data_dir, sources.task_files)
        ]
        if self.text:
            problems += [f"{section}.text: {p}" for p in missing_text(self.text, sources.data_dir)]
        return problems

    def wrong(self, sources: DataSources, section: str) -> list[str]:
        """What is wrong in local files that are all there, in words that name the key."""
        rows = wrong_rows(self.tasks, sources.data_dir, self.items, sources.task_files)
        problems = [f"{section}.tasks: {problem}" for problem in rows]
        if self.text and text_file(self.text, sources.data_dir):
            try:
                text_rows(self.text, sources.data_dir)
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
        if self.text and text_file(self.text, sources.data_dir):
            rows = text_rows(self.text, sources.data_dir)
            wrong = text_problem(
                tokenizer, rows, self.seqlen, self.text_tokens, model.vocabulary_size
            )
            problems += [f"{section}.text: {self.text}: {wrong}"] if wrong else []
        own = {name: path for name, path in sources.task_files.items() if name in self.tasks}
        choices = too_long_choices(tokenizer, own, self.items, model.context_length)
        wrong = [no_first_token(tokenizer)] if self.tasks else []
        return problems + [
            f"{section}.tasks: {problem}" for problem in (*wrong, *choices) if problem
        ]

    def identity(self, sources: DataSources, model: ModelSource, digest: Digest) -> dict[str, Any]:
        """What decides the numbers: settings; texts, tasks and tokenizer by their content."""
        digests = {name: digest(path) for name, path in self.files(sources).items()}
        from_hub = {"text": self.text} if self.text and "text" not in digests else {}
        settings = {key: value for key, value in asdict(self).items() if key != "text"}
        return {
            **settings,
            **from_hub,
            "tasks": list(self.tasks),
            "files": digests,
            "tokenizer": tokenizer_digest(model, digest) if self.reads_text else None,
        }
