"""A run: its configuration, its plan, and the folders it writes to."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.config.schema import of_today, validate
from pipeline.errors import ConfigError, DamagedError, PipelineError, StageError
from pipeline.executors import executor_named, find_executor
from pipeline.export.publish import taken
from pipeline.files import content_of, read_object, read_sealed, understood
from pipeline.given import why_unwritable
from pipeline.methods import methods
from pipeline.models.source import ModelSource
from pipeline.plan.plan import Plan, plan, planning_of, source_of
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN_WIDTH
from pipeline.settings.core import Config, ModelConfig
from pipeline.stages.base import PlannedStage
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.export import ExportConfig, places
from pipeline.store.folders import LAUNCH, launch_of
from pipeline.store.results import Store
from pipeline.store.run_folder import CONFIG, RunFolder


@dataclass(frozen=True)
class Run:
    """Everything that is needed to run a configuration's stages, or to submit them."""

    config: Config
    source: ModelSource
    plan: Plan
    folder: RunFolder
    store: Store

    @classmethod
    def prepare(cls, config: Config, source: ModelSource) -> "Run":
        """Plan a checked configuration. Raises ``ConfigError`` where its folder is taken."""
        store = Store(config.store_dir)
        return cls.planned(plan(planning_of(settled(config, source), source, store)), store)

    @classmethod
    def planned(cls, plan: Plan, store: Store) -> "Run":
        """The run of a plan. Raises ``ConfigError`` where its folder is taken."""
        config, source = plan.planning.config, plan.planning.source
        folder = RunFolder.of(config, plan.key, source.name)
        folder.check_owner(config, plan.key)
        run = cls(config, source, plan, folder, store)
        run.check_exports()
        return run

    @classmethod
    def open(
        cls,
        path: Path,
        find: Callable[[Config], ModelSource] = lambda c: source_of(c.model),
        other: Mapping[str, Any] | None = None,
    ) -> "Run":
        """The run of a folder. Its relative paths count from where it was launched.

        ``find`` gives its model, and may check its configuration first. ``other`` are sections in
        the place of those in the folder.
        """
        config = config_of(path, other or {})
        source = find(config)
        store = Store(config.store_dir)
        planning = replace(planning_of(config, source, store), reach=_reach_of(path))
        return cls(config, source, plan(planning), RunFolder(path), store)

    @property
    def exports(self) -> list[tuple[PlannedStage, Path]]:
        """The run's exports, and the folder of each."""
        return list(places(self.config, self.plan.stages, self.folder.path))

    def check_exports(self) -> None:
        """Raise ``ConfigError`` where an export cannot be written, or its folder is taken."""
        problems = refused_exports(self.config, self.source)
        reasons = [taken(folder, self.plan.key) for _, folder in self.exports]
        unwritable = [(folder, why_unwritable(folder)) for _, folder in self.exports]
        reasons += [f"{folder} {why}" for folder, why in unwritable if why]
        problems += [f"export.dir: {reason}" for reason in reasons if reason]
        if problems:
            raise ConfigError(problems)

    def require(self, stages: Iterable[PlannedStage]) -> None:
        """Raise ``StageError`` where one of the stages is not finished."""
        if missing := [each.name for each in stages if self.store.finished(each) is None]:
            path = self.folder.path
            raise StageError(
                f"{path} is not finished ({', '.join(missing)}); see: multipruner status {path}"
            )

    def claim(self) -> None:
        """Make the run's folder this run's."""
        plan = self.plan
        self.folder.claim(self.config, plan.key, plan.stages, plan.planning.reach)
        self.store.digests.save()

    def final_state(self) -> PruningState:
        """The state in which the run ended. Raises ``StageError`` before it has."""
        path = self.folder.path / "pruning_config.json"
        given = read_object(path)
        if given is None:
            run = self.folder.path
            raise StageError(f"{run} is not pruned yet; see: multipruner status {run}")
        return understood(path, lambda: PruningState.from_pruning_config(self.source.shape, given))

    @property
    def is_complete(self) -> bool:
        """Whether every stage is finished."""
        return all(self.store.finished(stage) is not None for stage in self.plan.stages)


def refused_exports(config: Config, source: ModelSource) -> list[str]:
    """Why exports cannot be written of the model that a run ends with, as far as it is known."""
    settings, uniform = config.of(ExportConfig), _ends_uniform(config, source)
    refusals = (
        (target.name, target.refused(source, settings.of(target), uniform))
        for target in settings.wanted
    )
    problems = [f"export.{name}: {reason}" for name, reason in refusals if reason]
    if settings.pad and settings.wanted and (reason := _why_no_zeros(config, source)):
        problems.append(f"export.pad: {reason}")
    return problems


def _ends_uniform(config: Config, source: ModelSource) -> bool | None:
    """Whether the exported model's layers will be alike; None where only the run tells."""
    if config.of(ExportConfig).pad:
        return True
    if config.of(EvaluateConfig).pruning_config:
        return None
    return False if methods()[config.prune.method].narrows(config.prune, source) else None


def _why_no_zeros(config: Config, source: ModelSource) -> str | None:
    """Why there can be no zeros where something went; None where there can, or it may be."""
    prune = config.prune
    if config.of(EvaluateConfig).pruning_config:
        return None
    loses_heads = methods()[prune.method].narrows(prune, source, ATTN_WIDTH)
    return source.family.why_no_zeros if loses_heads else None


def config_of(path: Path, other: Mapping[str, Any] = MappingProxyType({})) -> Config:
    """The validated configuration of a run's folder, with other sections in the place of its own.

    Raises ``DamagedError``, and ``ConfigError`` for what is wrong in the other sections.
    """
    settings = of_today(settings_of(path))
    (settings.get("sweep") or {}).pop("reach", None)  # of an earlier version
    config = understood(path / CONFIG, lambda: validate(settings))
    return validate({**settings, **other}) if other else config


def _reach_of(path: Path) -> dict[str, float]:
    """How far the dimensions are pruned that a run's folder shares with others."""
    reach = launch_of(path).reach
    if reach is None:  # earlier versions had it among the settings
        reach = (settings_of(path).get("sweep") or {}).get("reach")
    return dict(reach or {})


def settings_of(path: Path) -> dict[str, Any]:
    """The configuration that a run's folder holds. Raises ``DamagedError``."""
    launched = read_sealed(path / LAUNCH, LAUNCH) or {}
    values: Any = launched.get("config") or written_settings(path)
    executor = understood(path / CONFIG, lambda: find_executor(values["cluster"]["name"]))
    # folders of earlier versions have keys that mean nothing any more
    known = {"model": ModelConfig.model_fields}
    if executor:
        known["cluster"] = executor.section.model_fields
    for section, keys in known.items():
        values[section] = {k: v for k, v in values[section].items() if k in keys}
    return dict(values)


def settled(config: Config, source: ModelSource) -> Config:
    """The configuration with what only its launch can say: device, and commit of a hub model.

    So its jobs read the same model, whatever is pushed to the hub before they start.
    """
    found = {"device": device_of(config), "revision": source.revision}
    return config.model_copy(update={"model": config.model.model_copy(update=found)})


def written_settings(path: Path) -> dict[str, Any]:
    """What ``config.yaml`` has, for people and for folders of earlier versions."""
    file = path / CONFIG
    text = content_of(file)
    if text is None:
        raise DamagedError(file, "it is missing")
    try:
        values = OmegaConf.to_container(OmegaConf.create(text.decode()))
    except (ValueError, YAMLError, OmegaConfBaseException):
        values = None
    if not isinstance(values, dict):
        raise DamagedError(file, "it is cut short or garbled, no configuration")
    return {str(key): value for key, value in values.items()}


def device_of(config: Config) -> str:
    """``model.device`` with auto resolved as it will be where the stages run."""
    if config.model.device != "auto":
        return config.model.device
    return executor_named(config.cluster.name).device(config.cluster)


@contextmanager
def launched_from(path: Path) -> Iterator[None]:
    """Stand where a run was launched while its relative paths are read."""
    before = Path.cwd()
    try:
        os.chdir(launch_of(path).folder)
    except OSError as error:
        raise PipelineError(f"{path} is no run that can go on from here: {error}") from error
    try:
        yield
    finally:
        os.chdir(before)
