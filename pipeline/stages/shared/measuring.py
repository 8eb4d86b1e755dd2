"""Measuring variants, each once: for the probe after every step, and at the end."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from pipeline.files import key_of, mended, publish_sealed
from pipeline.measure.accuracy import TaskSet
from pipeline.measure.latency import OutOfRoomError, measure_latency
from pipeline.measure.memory import measure_memory
from pipeline.measure.protocol import DataSources, MeasurementProtocol
from pipeline.measure.record import Record, TaskScore, TextScore, read_record
from pipeline.measure.text import Text, text_windows
from pipeline.measure.workloads import LatencySettings
from pipeline.models.loading import DTYPES
from pipeline.models.prunable import PrunableModel
from pipeline.models.variants import Variant
from pipeline.pruning.state import PruningState
from pipeline.scoring.memory import free_bytes
from pipeline.scoring.one_pass import Progress, perplexity
from pipeline.scoring.perplexity import Windows
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.shared import identity
from pipeline.stages.shared.parts import Part

TWIN_BYTES = 2_000_000_000
"""On a CPU a model with weights up to this size is timed in turns with a dense twin."""


PASS_IN_TOKENS = 64
"""Tokens of a text that are read in the time of one decoding step, until that was timed."""


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
        self._left_out: list[_Part] = []
        self._seconds: dict[str, float] = defaultdict(float)
        """What measuring the present variant took, by kind."""
        self._doing = ""

    def work(self, *, is_dense: bool = False) -> dict[str, float]:
        """What measuring one variant takes, as listeners are told it."""
        return {
            part.kind: self._tokens(part, is_dense=is_dense)
            for part in self._parts
            if part not in self._left_out
        }

    def missing(self, variants: Iterable[Variant]) -> dict[str, float]:
        """What measuring takes of these variants that nobody measured before."""
        total: dict[str, float] = defaultdict(float)
        for variant in variants:
            for part in self._parts:
                if not self._path(part, variant).exists():
                    total[part.kind] += self._tokens(part, is_dense=_is_dense(variant))
        return total

    def of(self, variant: Variant, doing: str) -> Record:
        """The record of ``variant``; only what nobody measured before is measured.

        ``doing`` says for a person which one that is.
        """
        self._doing = doing
        self._seconds.clear()
        records = [self._of_part(part, variant) for part in self._parts]
        parts = [record for record in records if record]
        if self._seconds:
            self.inputs.listener.on_measured(dict(self._seconds))
        return Record.joined(variant.state.params, self.inputs.made_by, parts)

    def _of_part(self, part: "_Part", variant: Variant) -> Record | None:
        """None where the device has no room for it."""
        if part in self._left_out:
            return None
        path = self._path(part, variant)
        stored = mended(lambda: read_record(path), self.inputs.listener.on_warning)
        if stored is None:
            try:
                record = self._measured(part, variant)
            except OutOfRoomError as error:
                self._left_out.append(part)
                self.inputs.listener.on_warning(f"{error}; it is left out")
                return None
            self._seconds[part.kind] += record.seconds
            made_of = self._identity(part, variant)
            publish_sealed(path, {"identity": made_of, "record": record.to_json()}, path.name)
            stored = read_record(path)
            assert stored is not None
        return part.named(stored)

    def _measured(self, part: "_Part", variant: Variant) -> Record:
        listener = self.inputs.listener
        listener.on_doing(f"{self._doing}: {part.kind}")
        model = self.inputs.live.at(variant)
        dense = self._twin(model, variant) if part.protocol.workloads else None
        tokens = self._tokens(part, is_dense=_is_dense(variant))
        listener.on_doing(f"{self._doing}: {part.kind}")  # the model was loaded meanwhile
        done = Part(lambda share: listener.on_progress(part.kind, share * tokens))
        record = part.measured(model, variant.state.params, self.inputs.made_by, dense, done.add)
        done.end()
        return record

    def _tokens(self, part: "_Part", *, is_dense: bool) -> float:
        """As ``_Part.tokens``, of all models that are timed."""
        is_in_turns = self.config.model.device == "cpu" and self._has_room_for_twin and not is_dense
        return part.tokens * (2 if is_in_turns and part.protocol.workloads else 1)

    def _path(self, part: "_Part", variant: Variant) -> Path:
        return self.inputs.records / f"{key_of(self._identity(part, variant))}.json"

    def _twin(self, model: PrunableModel, variant: Variant) -> PrunableModel | None:
        """On a CPU the dense model, for times that are taken in turns; None if it is too large."""
        if model.device.type != "cpu" or not self._has_room_for_twin:
            return None
        dense = PruningState.dense(variant.state.shape)
        twin = self.inputs.live.twin(self.inputs.live.cut(dense))
        return model if _is_dense(variant) else twin

    @cached_property
    def _has_room_for_twin(self) -> bool:
        """Whether the dense model may be in memory a second time."""
        weights = self.inputs.source.shape.total_params * DTYPES[self.config.model.dtype].itemsize
        return weights <= TWIN_BYTES and 2 * weights <= free_bytes(torch.device("cpu"))

    def _identity(self, part: "_Part", variant: Variant) -> Mapping[str, Any]:
        """What decides a record: the model, what is measured, and what it is computed with."""
        device_name = self.inputs.made_by["device"]
        return identity.of_record(self.config, variant.measured_as, part.identity, device_name)

    @cached_property
    def _parts(self) -> "list[_Part]":
        return [_Part(part, self._sources, self.inputs) for part in self.protocol.parts()]


def _tokens_like(workload: LatencySettings) -> float:
    """Tokens that take about as long to read as generating does."""
    generations = workload.warmup + workload.repeats
    return generations * (workload.prompt_tokens + PASS_IN_TOKENS * workload.output_tokens)


def _share(on_progress: Progress, of_whole: float) -> Progress:
    """Progress of a piece, told as that of the whole."""
    return lambda share: on_progress(share * of_whole)


def _is_dense(variant: Variant) -> bool:
    return variant.state == PruningState.dense(variant.state.shape)


class _Part:
    """A protocol that measures one thing; what it reads is read once for all variants."""

    def __init__(self, protocol: MeasurementProtocol, sources: DataSources, inputs: Inputs) -> None:
        self.protocol, self._sources, self._source = protocol, sources, inputs.source
        self.identity = protocol.identity(sources, inputs.source, inputs.digest)

    @property
    def kind(self) -> str:
        """What it measures."""
        return "texts" if self.protocol.texts else "tasks" if self.protocol.tasks else "latency"

    @cached_property
    def tokens(self) -> float:
        """That go through one model; of latency, as many as about take as long."""
        of_texts = sum(windows.ids.numel() for _, windows in self._windows)
        of_tasks = self._tasks.tokens if self._tasks else 0
        return of_texts + of_tasks + sum(map(_tokens_like, self.protocol.workloads))

    def measured(
        self,
        model: PrunableModel,
        params: int,
        made_by: Mapping[str, Any],
        dense: PrunableModel | None,
        on_progress: Progress,
    ) -> Record:
        """The record of a model that is in memory; ``dense`` is timed in turns with it.

        ``on_progress`` is called with the share that was done since the last call.
        """
        started = time.monotonic()
        texts = tuple(
            TextScore(
                text.name,
                text.title,
                text.split,
                tokens=windows.ids.numel(),
                is_whole=text.is_whole(windows.ids.numel()),
                seqlen=text.seqlen,
                ppl=perplexity(
                    model, windows, _share(on_progress, windows.ids.numel() / self.tokens)
                ),
                bos=self._source.beginning.of_windows,
            )
            for text, windows in self._windows
        )
        tasks = self._scores(model, on_progress)
        latencies, memory = [], None
        for workload in self.protocol.workloads:
            progress = _share(on_progress, _tokens_like(workload) / self.tokens)
            latency, peak_bytes = measure_latency(model, workload, dense, progress)
            latencies.append(latency)
            memory = memory or measure_memory(model, peak_bytes)
        return Record(
            params=params,
            texts=texts,
            tasks=tasks,
            latencies=tuple(latencies),
            memory=memory,
            seconds=time.monotonic() - started,
            made_by=made_by,
        )

    def _scores(self, model: PrunableModel, on_progress: Progress) -> tuple[TaskScore, ...]:
        if not self._tasks:
            return ()
        scores = self._tasks.evaluate(model, self._source.tokenizer, on_progress)
        bos = self._source.beginning.of_texts
        return tuple(replace(score, bos=bos) for score in scores)

    def named(self, record: Record) -> Record:
        """With names as they are asked for: another run may have called the same otherwise."""
        texts = tuple(
            replace(score, name=text.name, text=text.title, split=text.split)
            for text, score in zip(self.protocol.texts, record.texts, strict=True)
        )
        latencies = tuple(
            replace(latency, workload=workload.workload)
            for workload, latency in zip(self.protocol.workloads, record.latencies, strict=True)
        )
        return replace(record, texts=texts, latencies=latencies)

    @cached_property
    def _windows(self) -> list[tuple[Text, Windows]]:
        data_dir = self._sources.data_dir
        return [
            (
                text,
                text_windows(
                    self._source.tokenizer,
                    text.rows(data_dir),
                    text.seqlen,
                    text.most_tokens,
                    self._source.beginning.window,
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
