"""What a finished run is shown as: its files gathered into a report."""

from pathlib import Path
from typing import Any, get_args

from pipeline.files import Json, read_json
from pipeline.measure.record import Record
from pipeline.measure.text import WIKITEXT2
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.state import PruningState
from pipeline.report.data import Evaluation, ReportStep, RunReport, Sensitivity, Which
from pipeline.runs.invocation import Invocation
from pipeline.settings.core import Config
from pipeline.stages.evaluate import EvaluateConfig


def report_of(invocation: Invocation, summary: Json) -> RunReport:
    """Everything that is known of the run that ``invocation`` finished."""
    config, folder = invocation.config, invocation.folder.path
    shape = shape_from_config(invocation.source.config)
    state = PruningState.from_pruning_config(shape, read_json(folder / "pruning_config.json"))
    return RunReport(
        name=summary["run"],
        model_name=invocation.source.name,
        target_ratio=config.prune.target_ratio,
        state=state,
        device=summary["made_by"]["device"],
        settings=_shown_settings(config),
        dense=invocation.dense,
        pruned=invocation.records.get(len(invocation.rows) - 1),
        steps=tuple(
            ReportStep.from_json(row.to_json(), invocation.records.get(row.step))
            for row in invocation.rows
        ),
        sensitivity=_sensitivity(invocation),
        evaluation=_evaluation(folder / "evaluation.json"),
        evaluation_text=_text_name(config.of(EvaluateConfig).text),
        probe_share=summary["probe_share"],
        counts={
            "steps": summary["steps"],
            "steps computed now": summary["steps_computed"],
            "candidates scored now": summary["candidates_scored"],
        },
    )


def _shown_settings(config: Config) -> dict[str, Any]:
    settings = config.model_dump(mode="json")
    return {name: settings[name] for name in ("model", "calibration", "prune", "probe", "evaluate")}


def _text_name(text: str | None) -> str:
    return "WikiText-2" if text in (None, WIKITEXT2) else Path(str(text)).name


def _sensitivity(invocation: Invocation) -> dict[str, Sensitivity]:
    stage = invocation.plan.by_name.get("score")
    if stage is None:
        return {}
    entries = read_json(invocation.store.folder(stage) / "sensitivity.json")
    return {name: Sensitivity.from_json(entry) for name, entry in entries.items()}


def _evaluation(path: Path) -> dict[Which, Evaluation]:
    if not path.exists():
        return {}
    data = read_json(path)
    evaluation: dict[Which, Evaluation] = {}
    for which in get_args(Which):
        record = Record.from_json(data[which])
        evaluation[which] = Evaluation(record.tasks, record.ppl)
    return evaluation
