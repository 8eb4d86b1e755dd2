"""A run: its configuration, its plan, and the folders it writes to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config.schema import Config, validate
from pipeline.errors import PipelineError
from pipeline.executors import executor_named, executors
from pipeline.files import read_json
from pipeline.models.source import ModelSource, locate
from pipeline.plan.plan import Plan, plan
from pipeline.store.results import Store
from pipeline.store.run_folder import RunFolder


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
        device = device_of(config)
        model = config.model.model_copy(update={"device": device})
        config = config.model_copy(update={"model": model})
        store = Store(config.store_dir)
        planned = plan(config, source, store.digests)
        folder = RunFolder.of(config, planned, source.name)
        folder.check_owner(config, planned)
        return cls(config, source, planned, folder, store)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run of a folder. Its relative paths count from where it was launched."""
        config = validate(settings_of(path))
        settings = config.model
        source = locate(
            settings.path, settings.gguf_file, settings.revision, settings.trust_remote_code
        )
        store = Store(config.store_dir)
        return cls(config, source, plan(config, source, store.digests), RunFolder(path), store)

    def planned_as(self, config: Config) -> "Run":
        """The same run with another configuration that leaves model and folder as they are."""
        planned = plan(config, self.source, self.store.digests)
        return replace(self, config=config, plan=planned)

    def claim(self) -> None:
        """Make the run's folder this run's."""
        self.folder.claim(self.config, self.plan)
        self.store.digests.save()

    @property
    def is_complete(self) -> bool:
        """Whether every stage is finished."""
        return all(self.store.finished(stage) is not None for stage in self.plan.stages)


def settings_of(path: Path) -> dict[str, Any]:
    """The configuration that a run's folder holds."""
    values: Any = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
    if executor := executors().get(values["cluster"]["name"]):
        # folders of earlier versions have keys that mean nothing to it
        keys = executor.section.model_fields
        values["cluster"] = {k: v for k, v in values["cluster"].items() if k in keys}
    return dict(values)


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
        os.chdir(read_json(path / "launch.json")["folder"])
    except OSError as error:
        raise PipelineError(f"{path} is no run that can go on from here: {error}") from error
    try:
        yield
    finally:
        os.chdir(before)
