"""Measuring variants, each once: for the probe after every step, and at the end."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pipeline.files import key_of, mended, publish_sealed
from pipeline.measure.accuracy import TaskSet
from pipeline.measure.latency import measure_latency
from pipeline.measure.memory import measure_memory
from pipeline.measure.protocol import DataSources, MeasurementProtocol
from pipeline.measure.record import Record, TextScore, read_record
from pipeline.measure.text import Text, text_windows
from pipeline.models.prunable import PrunableModel
from pipeline.models.variants import Variant
from pipeline.scoring.one_pass import perplexity
from pipeline.scoring.perplexity import Windows
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.shared import identity


class Measurements:
    """Records of variants, from disk where they are there, else measured on the live model."""

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        protocol: MeasurementProtocol,
        sources: DataSources,
    ) -> None:
        self.config, self.inputs = config, inputs
        self.protocol, self._sources = protocol, sources
        self._seconds: dict[str, float] = defaultdict(float)
        """What measuring the present variant took, by kind."""

    def of(self, variant: Variant) -> Record:
        """The record of ``variant``; only what nobody measured before is measured."""
        self._seconds.clear()
        parts = [self._of_part(part, variant) for part in self._parts]
        if self._seconds:
            self.inputs.listener.on_measured(dict(self._seconds))
        return Record.joined(variant.state.params, self.inputs.made_by, parts)

    def _of_part(self, part: "_Part", variant: Variant) -> Record:
        made_of = self._identity(part, variant)
        path = self.inputs.records / f"{key_of(made_of)}.json"
        stored = mended(lambda: read_record(path), self.inputs.listener.on_warning)
        if stored is None:
            record = part.measured(
                self.inputs.live.at(variant), variant.state.params, self.inputs.made_by
            )
            self._seconds[part.kind] += record.seconds
            publish_sealed(path, {"identity": made_of, "record": record.to_json()}, path.name)
            stored = read_record(path)
            assert stored is not None
        return part.named(stored)

    def _identity(self, part: "_Part", variant: Variant) -> Mapping[str, Any]:
        """What decides a record: the model, what is measured, and what it is computed with."""
        device_name = self.inputs.made_by["device"]
        return identity.of_record(self.config, variant, part.identity, device_name)

    @cached_property
    def _parts(self) -> "list[_Part]":
        return [_Part(part, self._sources, self.inputs) for part in self.protocol.parts()]


class _Part:
    """A protocol that measures one thing; what it reads is read once for all variants."""

    def __init__(self, protocol: MeasurementProtocol, sources: DataSources, inputs: Inputs) -> None:
        self.protocol, self._sources, self._source = protocol, sources, inputs.source
        self.identity = protocol.identity(sources, inputs.source, inputs.digest)

    @property
    def kind(self) -> str:
        """What it measures."""
        return "texts" if self.protocol.texts else "tasks" if self.protocol.tasks else "latency"

    def measured(self, model: PrunableModel, params: int, made_by: Mapping[str, Any]) -> Record:
        """The record of a model that is in memory."""
        started = time.monotonic()
        texts = tuple(
            TextScore(
                text.name,
                text.title,
                text.split,
                tokens=windows.ids.numel(),
                is_whole=text.is_whole(windows.ids.numel()),
                seqlen=text.seqlen,
                ppl=perplexity(model, windows),
            )
            for text, windows in self._windows
        )
        tasks = self._tasks.evaluate(model, self._source.tokenizer) if self._tasks else ()
        latency, memory = None, None
        if self.protocol.latency:
            latency, peak_bytes = measure_latency(model, self.protocol.latency)
            memory = measure_memory(model, peak_bytes)
        return Record(
            params=params,
            texts=texts,
            tasks=tasks,
            latency=latency,
            memory=memory,
            seconds=time.monotonic() - started,
            made_by=made_by,
        )

    def named(self, record: Record) -> Record:
        """With names as they are asked for: another run may have called the same text otherwise."""
        texts = tuple(
            replace(score, name=text.name, text=text.title, split=text.split)
            for text, score in zip(self.protocol.texts, record.texts, strict=True)
        )
        return replace(record, texts=texts)

    @cached_property
    def _windows(self) -> list[tuple[Text, Windows]]:
        data_dir = self._sources.data_dir
        return [
            (
                text,
                text_windows(
                    self._source.tokenizer, text.rows(data_dir), text.seqlen, text.most_tokens
                ),
            )
            for text in self.protocol.texts
        ]

    @cached_property
    def _tasks(self) -> TaskSet | None:
        if not self.protocol.tasks:
            return None
        sources, items = self._sources, self.protocol.items
        files = tuple(sources.task_files.items())
        content = key_of({"tasks": self.identity["tasks"]})
        return _task_set(
            content, self.protocol.tasks, sources.data_dir, items, sources.batch_size, files
        )


@lru_cache(maxsize=16)
def _task_set(
    _content: str,
    names: tuple[str, ...],
    data_dir: Path | None,
    items: int | None,
    batch_size: int | None,
    files: tuple[tuple[str, Path], ...],
) -> TaskSet:
    """Tasks of this content, built once in this process for all stages and runs that ask them."""
    return TaskSet(names, data_dir, items, batch_size, dict(files))
