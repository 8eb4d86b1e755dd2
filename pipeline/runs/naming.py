"""How a run is presented among others: its name, its tags, what it is filtered by."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.methods import method_of
from pipeline.settings.core import Config
from pipeline.settings.flat import flat
from pipeline.stages.base import PlannedStage
from pipeline.stages.calibrate import CalibrationConfig
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.recover import RecoverConfig

MOST_TAG_CHARACTERS = 64


def job_type(stages: Collection[PlannedStage]) -> str:
    """The stage that a process is for: a run's main one where it is among them, or the last."""
    main = [planned for planned in stages if planned.stage.is_main]
    return max(main or stages, key=lambda planned: planned.stage.order).name


def display_name(config: Config, model: str) -> str:
    """What tells a run from others at a glance: Llama-2-7b-hf 22% 44:52:4, and what is unusual.

    ``run.name`` where the user gave one.
    """
    if config.run.name:
        return config.run.name
    given = config.of(EvaluateConfig).pruning_config
    if given:
        return f"{model} {Path(given).absolute().parent.name}"
    label = method_of(config.prune).label(config.prune)
    return " ".join([model, f"{config.prune.target_ratio:g}%", label, *_unusual(config)])


def _unusual(config: Config) -> list[str]:
    calibration = config.of(CalibrationConfig)
    shown: list[str] = [calibration.dataset] if calibration.dataset != "alpaca" else []
    for name, text in (
        ("block_samples", "{} block rows"),
        ("width_samples", "{} width rows"),
        ("seqlen", "{} tokens"),
        ("seed", "draw {}"),
    ):
        if _differs(calibration, name):
            shown.append(text.format(getattr(calibration, name)))
    recovered = " + ".join(config.of(RecoverConfig).steps)
    shown += method_of(config.prune).unusual(config.prune)
    return [*shown, recovered] if recovered else shown


def _differs(section: CalibrationConfig, name: str) -> bool:
    return bool(getattr(section, name) != type(section).model_fields[name].default)


def tags(config: Config, model: str) -> tuple[str, ...]:
    """The user's tags, and what people filter by, each once and as long as W&B takes it."""
    of_method = method_of(config.prune).tags(config.prune)
    text, techniques = config.of(CalibrationConfig).dataset, config.of(RecoverConfig).steps
    own = [model, config.run.paper, *of_method, text, *techniques]
    wanted = [*config.tracking.tags, *(tag for tag in own if tag)]
    return tuple(dict.fromkeys(tag[:MOST_TAG_CHARACTERS] for tag in wanted))


def mirrored_config(config: Config, folder: Path) -> dict[str, Any]:
    """The configuration as it is shown outside this machine, with the run's folder.

    Above its sections stands what the columns of a table of runs are usually chosen from.
    """
    settings, method = config.model_dump(mode="json"), method_of(config.prune)
    columns: dict[str, Any] = {
        "method": config.prune.method,
        "target_ratio": config.prune.target_ratio,
        "distribution": method.label(config.prune),
        **method.columns(config.prune),
    }
    if config.sweep.trial is not None:
        values = flat(settings)
        columns["trial"] = config.sweep.trial
        columns["proposed"] = {key: values[key] for key in config.study.space if key in values}
    cluster = _set(config.cluster.shown())
    return {**settings, "cluster": cluster, "folder": str(folder.absolute()), **columns}


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is left open, at any depth: of a cluster that is most of its keys."""
    inner = {
        key: _set(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    return {key: value for key, value in inner.items() if value not in (None, {}, [])}
