"""Checks that need the world: files, the model's layout, folders. Writes nothing."""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pipeline.criteria.base import GRADIENTS
from pipeline.errors import ConfigError
from pipeline.executors import executor_named
from pipeline.files import is_folder
from pipeline.given import file_problem, folder_problem, why_unwritable
from pipeline.methods import method_of
from pipeline.models.ordering import state_in
from pipeline.models.source import ModelSource, locate
from pipeline.plan.plan import plan, planning_of
from pipeline.plan.prefetching import missing as not_in_cache
from pipeline.plan.run import settled
from pipeline.settings.core import Config, ModelConfig
from pipeline.stages import calibrate, recover
from pipeline.stages.calibrate import CalibrationConfig
from pipeline.stages.evaluate import (
    EvaluateConfig,
    data_sources,
    evaluation_protocol,
    prunes,
)
from pipeline.stages.probe import ProbeConfig, probe_protocol
from pipeline.stages.shared.phases import needs_of, needs_windows
from pipeline.store.folders import RUNS
from pipeline.store.results import Store
from pipeline.store.run_folder import RunFolder
from pipeline.store.summary import Summary

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.measure.protocol import MeasurementProtocol


def check(config: Config) -> ModelSource:
    """Find the model and check the configuration against it and this machine.

    Raises ``ConfigError`` with every problem.
    """
    return Preflight().check(config)


class Preflight:
    """Checks several configurations: what takes time is done once for what they have in common."""

    def __init__(self) -> None:
        self._sources: dict[str, ModelSource] = {}
        self._problems: dict[tuple[str, ...], list[str]] = {}

    def check(self, config: Config) -> ModelSource:
        """Find the model and check the configuration. Raises ``ConfigError`` with all problems."""
        is_pruned = prunes(config)
        reads_text = is_pruned and needs_windows(config)
        measured = (config.of(ProbeConfig), config.of(EvaluateConfig))
        measured_problems = self._once("measured", lambda: _measured_files(config), *measured)
        problems = [
            *_collected(lambda: _folders(config)),
            *_collected(lambda: executor_named(config.cluster.name).problems(config)),
            *measured_problems,
        ]
        file_problems = _calibration_file(config) if reads_text else []
        problems += [*file_problems, *recover.missing_files(config)]
        problems += _collected(lambda: self._find(config.model))
        if source := self._sources.get(config.model.model_dump_json()):
            read = (config.model, config.of(CalibrationConfig))
            done = {} if problems else _finished(config, source)
            is_done = bool(done) and all(done.values())  # so nothing is read any more
            if is_done:
                return source
            if wrong := self._once("model", lambda: _checked(source), config.model):
                raise ConfigError(list(dict.fromkeys([*problems, *wrong])))
            weights_problems = self._once("weights", lambda: incomplete(source), config.model)
            problems += weights_problems
            problems += _kernel(config.model, source)
            problems += _collected(lambda: _measurements(config, source))
            recovered = (config.model, config.of(recover.RecoverConfig), config.of(EvaluateConfig))
            problems += self._once(
                "recovery", lambda: recover.problems_of(config, source), *recovered
            )
            if source.tokenizer_files and not measured_problems:
                problems += self._once(
                    "unfit", lambda: _unfit(config, source), config.model, *measured
                )
            if config.cluster.is_offline:
                problems += self._once(
                    "cache", lambda: not_in_cache(config, source), *read, *measured
                )
            if not weights_problems:  # else its shape is not known
                about_model = _method if is_pruned else _pruning_config
                problems += _collected(lambda: about_model(config, source))
            if reads_text and not file_problems:
                are_cut = done.get(calibrate.STAGE.name, False)
                problems += self._once(
                    "windows", lambda: _windows(config, source, are_cut=are_cut), *read
                )
        if problems or source is None:
            raise ConfigError(list(dict.fromkeys(problems)))
        return source

    def _find(self, model: ModelConfig) -> list[str]:
        key = model.model_dump_json()
        if key not in self._sources:
            self._sources[key] = locate(model.path, model.gguf_file, model.revision, model.bos)
        return []

    def _once(self, name: str, part: Callable[[], list[str]], *read: BaseModel) -> list[str]:
        """The problems of a part that reads these sections of the configuration."""
        key = (name, *(section.model_dump_json() for section in read))
        if key not in self._problems:
            self._problems[key] = _collected(part)
        return self._problems[key]


def _checked(source: ModelSource) -> list[str]:
    """What is wrong with its configuration, and whether text can begin as ``model.bos`` says."""
    source.check()
    if source.bos == "auto":
        return []
    if not source.tokenizer_files:
        return [
            f"model.bos: {source.bos} means nothing to {source.folder}, which has no tokenizer; "
            "leave it out"
        ]
    _ = source.tokenizer
    return []


def _kernel(model: ModelConfig, source: ModelSource) -> list[str]:
    """Its attention is what the family's is."""
    what = source.family.needs_eager
    if what is None or model.attn_implementation == "eager":
        return []
    return [
        f"model.attn_implementation: {model.attn_implementation} does not know the {what} of "
        f"{source.architecture}'s attention; allowed is eager"
    ]


def incomplete(source: ModelSource) -> list[str]:
    """What keeps its weights from being the model that its configuration says."""
    from pipeline.models.loading import incomplete

    return incomplete(source)


def prepare(settings: CalibrationConfig, source: ModelSource) -> "Mapping[str, Tensor]":
    """The calibration windows of both kinds, ``[windows, seqlen]``."""
    from pipeline.stages.shared.calibration import prepare

    return prepare(settings, source)[0]


def _finished(config: Config, source: ModelSource) -> dict[str, bool]:
    """Of the stages that the configuration needs, by name, whether each is finished.

    What a finished stage reads was checked before it was, and its key says that it is the same.
    Where all are, the model's shape is in the run's summary, too, and has not to be found again.
    """
    store = Store(config.store_dir)
    try:
        planned = plan(planning_of(settled(config, source), source, store))
    except ConfigError:
        return {}
    done = {stage.name: store.finished(stage) is not None for stage in planned.stages}
    summary = Summary.read(RunFolder.of(config, planned.key, source.name).path)
    if summary and summary.shape and all(done.values()):
        keys = {name: entry.key for name, entry in summary.stages.items()}
        if keys == {stage.name: stage.key for stage in planned.stages}:
            source.recall(summary.shape)
    return done


def _collected(part: Callable[[], list[str]]) -> list[str]:
    """The problems of a part, returned or raised."""
    try:
        return part()
    except ConfigError as error:
        return list(error.problems)


def _folders(config: Config) -> list[str]:
    problems = []
    model = config.model.path
    for key, value in (
        ("store.dir", config.store.dir),
        ("run.dir", config.run.dir or str(RUNS)),
    ):
        folder = Path(value).absolute()
        if not executor_named(config.cluster.name).is_here:
            problems += _open_to_all(key, folder)
        if problem := why_unwritable(folder):
            problems.append(f"{key}: {value} {problem}")
        elif is_folder(model) and _is_inside(folder, model):
            problems.append(
                f"{key}: {value} is inside the model's folder {model}; choose a folder elsewhere, "
                "so that the model stays as it is"
            )
    return problems


def _is_inside(folder: Path, other: str) -> bool:
    real = os.path.realpath(other)
    return os.path.commonpath([real, os.path.realpath(folder)]) == real


def _open_to_all(key: str, folder: Path) -> list[str]:
    """Jobs run the code in the store: who may write there decides what runs."""
    if not folder.is_dir():
        return []
    entry = folder.stat()
    if entry.st_mode & stat.S_IWOTH:
        return [f"{key}: {folder} can be written by everyone; type: chmod o-w {folder}"]
    return []


def _calibration_file(config: Config) -> list[str]:
    settings = config.of(CalibrationConfig)
    paths = {"calibration.path": settings.path}
    for name, source in settings.sources.items():
        paths[f"calibration.sources.{name}.path"] = source.path
    return [
        f"{key}: {path} {problem}"
        for key, path in paths.items()
        if path is not None and (problem := file_problem(path))
    ]


def _measured_files(config: Config) -> list[str]:
    """Every local file that probe and evaluate read is there, and every task is known."""
    evaluate, sources = config.of(EvaluateConfig), data_sources(config)
    if evaluate.data_dir and (problem := folder_problem(evaluate.data_dir)):
        return [f"evaluate.data_dir: {evaluate.data_dir} {problem}"]
    problems = []
    for section, protocol in _protocols(config).items():
        problems += protocol.missing(sources, section) or protocol.wrong(sources, section)
    given = evaluate.pruning_config
    if given is not None and (problem := file_problem(given)):
        problems.append(f"evaluate.pruning_config: {given} {problem}")
    if given is not None and not evaluate.enabled:
        problems.append("evaluate.pruning_config: nothing is evaluated; add evaluate=commonsense")
    return problems


def _protocols(config: Config) -> "dict[str, MeasurementProtocol]":
    """What is measured, by the section that says so."""
    protocols = {"evaluate": evaluation_protocol(config)}
    return protocols | ({"probe": probe_protocol(config)} if config.of(ProbeConfig).every else {})


def _unfit(config: Config, source: ModelSource) -> list[str]:
    """Local texts give the windows asked for, and tasks can be put to the model."""
    sources, problems = data_sources(config), []
    for section, protocol in _protocols(config).items():
        problems += protocol.unfit(sources, source, section)
    return problems


def _measurements(config: Config, source: ModelSource) -> list[str]:
    """The model has what measuring needs: a tokenizer, and a context that is long enough."""
    problems = []
    probe, evaluate = config.of(ProbeConfig), config.of(EvaluateConfig)
    texts: list[str | None] = [*evaluate.sources.values(), *evaluate.tasks]
    texts += [probe.text, *probe.tasks] if probe.every else []
    if any(texts) and not source.tokenizer_files:
        problems.append(
            f"model.path: {source.folder} has no tokenizer, and probe or evaluate read text; add "
            "its files there, or choose probe=none evaluate=none"
        )
    lengths = {
        "probe.seqlen": probe.seqlen if probe.every and probe.text else 0,
        "evaluate.seqlen": evaluate.seqlen if evaluate.sources else 0,
    }
    for name, workload in probe.workloads.items() if probe.every and probe.latency else ():
        key = f"probe.workloads.{name}: prompt_tokens + output_tokens"
        lengths[key] = workload.prompt_tokens + workload.output_tokens
    return [*problems, *source.too_long(lengths)]


def _pruning_config(config: Config, source: ModelSource) -> list[str]:
    path = config.of(EvaluateConfig).pruning_config or ""
    if file_problem(path):
        return []  # told already
    try:
        state_in(Path(path), source.shape)
    except ConfigError as error:
        return [f"evaluate.pruning_config: {problem}" for problem in error.problems]
    return []


def _method(config: Config, source: ModelSource) -> list[str]:
    """The settings of the method fit the model, and the model is held as it asks for."""
    problems = method_of(config.prune).problems(config.prune, source)
    if GRADIENTS in needs_of(config) and config.model.offload != "none":
        problems.append(
            f"model.offload: {config.model.offload} is wrong; allowed is none: "
            f"prune={config.prune.method} asks for gradients, of weights that are on the device"
        )
    return problems


def _windows(config: Config, source: ModelSource, *, are_cut: bool) -> list[str]:
    """The context length; and, for a local file, that it gives the windows asked for.

    ``are_cut`` says that it gave them before.
    """
    from pipeline.stages.shared.calibration import require_tokenizer

    context = source.context_length
    require_tokenizer(config.of(CalibrationConfig), source)
    key, length = "calibration.seqlen", config.of(CalibrationConfig).seqlen
    is_text = config.of(CalibrationConfig).dataset != "tokens"
    if config.of(CalibrationConfig).is_local and not (are_cut and is_text):
        windows = prepare(config.of(CalibrationConfig), source)
        length = max(ids.shape[1] for ids in windows.values())
        if config.of(CalibrationConfig).dataset == "tokens":
            key = "calibration.path"
    if context is not None and length > context:
        return [
            f"{key}: windows of {length} tokens are longer than the model's context; allowed is up "
            f"to {context}"
        ]
    return []
