"""Downloading what a run needs, and naming what is not there for machines without internet."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pipeline.config.compose import compose_overrides
from pipeline.errors import ConfigError, PipelineError
from pipeline.models.source import ModelSource, fetch, locate
from pipeline.settings.core import Config
from pipeline.stages.calibrate import CalibrationConfig
from pipeline.stages.evaluate import EvaluateConfig, data_sources, prunes
from pipeline.stages.probe import ProbeConfig
from pipeline.stages.shared.phases import needs_windows


def prefetch(overrides: Sequence[str]) -> Iterator[str]:
    """Bring everything into the cache that the launch with these arguments reads from the hub.

    Raises ``ConfigError`` with all that could not be brought.
    """
    config = compose_overrides(overrides)
    model = config.model
    source = locate(model.path, model.gguf_file, model.revision)
    problems: list[str] = []
    for name, bring in needed(config, source):
        yield f"fetching {name}"
        problems += _problem_of(name, bring)
    if problems:
        raise ConfigError(problems)
    yield "everything is in the cache; launch with cluster.offline=true"


def missing(config: Config, source: ModelSource) -> list[str]:
    """What a run without internet would not find. The hub's libraries must be offline already."""
    return [
        f"{problem}; on a machine with internet type: multipruner prefetch with the same arguments"
        for name, bring in needed(config, source)
        for problem in _problem_of(name, bring)
    ]


def needed(config: Config, source: ModelSource) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that a run reads from the hub: its name, and how it is brought."""
    from pipeline.data.datasets import dataset_rows
    from pipeline.measure.accuracy import TaskSet
    from pipeline.measure.text import text_file, text_rows

    sources = data_sources(config)
    data_dir, task_files = sources.data_dir, sources.task_files
    calibration, evaluate, probe = (
        config.of(CalibrationConfig),
        config.of(EvaluateConfig),
        config.of(ProbeConfig),
    )
    if source.hub_commit:
        yield f"model.path: {config.model.path}", partial(fetch, source)
    if calibration.path is None and prunes(config) and needs_windows(config):
        name = f"calibration.dataset: {calibration.dataset}"
        yield name, partial(dataset_rows, calibration.dataset, None, calibration.field)
    texts = {"evaluate.text": evaluate.text, "probe.text": probe.text if probe.every else None}
    for key, text in texts.items():
        if text and text_file(text, data_dir) is None:
            yield f"{key}: {text}", partial(text_rows, text, data_dir)
    tasks = {*evaluate.tasks, *(probe.tasks if probe.every else [])} - task_files.keys()
    if data_dir is None:
        for task in sorted(tasks):
            yield f"evaluate.tasks: {task}", partial(TaskSet, [task], None, 1, 1)


def _problem_of(name: str, bring: Callable[[], object]) -> list[str]:
    try:
        bring()
    except PipelineError as error:
        return [f"{name} is not in the cache: {error}"]
    except Exception as error:  # noqa: BLE001 - each of the hub's libraries has errors of its own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return [f"{name} is not in the cache: {first}"]
    return []
