"""What a run reads from the hub: how it is brought, and what of it is not there."""

from collections.abc import Callable, Iterator
from functools import partial

from pipeline.errors import PipelineError
from pipeline.models.source import ModelSource, fetch
from pipeline.settings.core import Config
from pipeline.stages.calibrate import CalibrationConfig
from pipeline.stages.evaluate import EvaluateConfig, data_sources, evaluation_protocol, prunes
from pipeline.stages.probe import ProbeConfig, probe_protocol
from pipeline.stages.recover import from_hub
from pipeline.stages.shared.phases import needs_windows


def missing(config: Config, source: ModelSource) -> list[str]:
    """What a run without internet would not find. The hub's libraries must be offline already."""
    return [
        f"{problem}; on a machine with internet type: multipruner prefetch with the same arguments"
        for name, bring in needed(config, source)
        for problem in problem_of(name, bring)
    ]


def needed(config: Config, source: ModelSource) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that a run reads from the hub: its name, and how it is brought."""
    from pipeline.data.datasets import dataset_rows
    from pipeline.measure.accuracy import TaskSet

    sources = data_sources(config)
    data_dir, task_files = sources.data_dir, sources.task_files
    calibration, evaluate, probe = (
        config.of(CalibrationConfig),
        config.of(EvaluateConfig),
        config.of(ProbeConfig),
    )
    if source.hub_commit:
        yield f"model.path: {source.hub_commit}", partial(fetch, source)
    if not calibration.is_local and prunes(config) and needs_windows(config):
        for dataset, field in calibration.of_hub:
            name = f"calibration.dataset: {dataset}"
            yield name, partial(dataset_rows, dataset, None, field)
    yield from from_hub(config)
    protocols = {"evaluate": evaluation_protocol(config)}
    if probe.every:
        protocols["probe"] = probe_protocol(config)
    for section, protocol in protocols.items():
        for text in protocol.texts:
            if text.file(data_dir) is None:
                yield f"{section}.text: {text.source}", partial(text.rows, data_dir)
    tasks = {*evaluate.tasks, *(probe.tasks if probe.every else [])} - task_files.keys()
    if data_dir is None:
        for task in sorted(tasks):
            yield f"evaluate.tasks: {task}", partial(TaskSet, [task], None, 1, 1)


def problem_of(name: str, bring: Callable[[], object]) -> list[str]:
    """Bring something; what is wrong where that does not work."""
    try:
        bring()
    except PipelineError as error:
        return [f"{name} is not in the cache: {error}"]
    except Exception as error:  # noqa: BLE001 - each of the hub's libraries has errors of its own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return [f"{name} is not in the cache: {first}"]
    return []
