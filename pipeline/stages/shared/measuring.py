"""Measuring variants, each once: for the probe after every step, and at the end."""

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pipeline.files import encode, key_of, publish, read_json
from pipeline.measure.accuracy import TaskSet
from pipeline.measure.latency import measure_latency
from pipeline.measure.memory import measure_memory
from pipeline.measure.protocol import DataSources, MeasurementProtocol
from pipeline.measure.record import Record
from pipeline.measure.text import text_rows, text_windows
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

    def of(self, variant: Variant) -> Record:
        """The record of ``variant``."""
        made_of = self._identity(variant)
        path = self.inputs.records / f"{key_of(made_of)}.json"
        try:
            return Record.from_json(read_json(path)["record"])
        except FileNotFoundError:
            record = self._measure(self.inputs.live.at(variant))
        publish(path, encode({"identity": made_of, "record": record.to_json()}))
        self.inputs.listener.on_measured(record.seconds)
        return record

    def _measure(self, model: PrunableModel) -> Record:
        started = time.monotonic()
        ppl = perplexity(model, self._windows) if self._windows else None
        tasks = self._tasks.evaluate(model, self._tokenizer) if self._tasks else ()
        latency, memory = None, None
        if self.protocol.latency:
            latency, peak_bytes = measure_latency(model, self.protocol.latency)
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

    def _identity(self, variant: Variant) -> Mapping[str, Any]:
        """What decides a record: the model, what is measured, and what it is computed with."""
        device_name = self.inputs.made_by["device"]
        return identity.of_record(self.config, variant, self._protocol_identity, device_name)

    @cached_property
    def _protocol_identity(self) -> dict[str, Any]:
        return self.protocol.identity(self._sources, self.inputs.source, self.inputs.digest)

    @cached_property
    def _tokenizer(self) -> Any:
        return self.inputs.source.tokenizer

    @cached_property
    def _windows(self) -> Windows | None:
        if self.protocol.text is None:
            return None
        rows = text_rows(self.protocol.text, self._sources.data_dir)
        return text_windows(self._tokenizer, rows, self.protocol.seqlen, self.protocol.text_tokens)

    @cached_property
    def _tasks(self) -> TaskSet | None:
        if not self.protocol.tasks:
            return None
        return TaskSet(
            self.protocol.tasks,
            self._sources.data_dir,
            self.protocol.items,
            self._sources.batch_size,
            self._sources.task_files,
        )
