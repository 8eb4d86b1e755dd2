"""What a finished run is shown as: its files gathered into a report."""

from pathlib import Path
from typing import Any, get_args

from pipeline.files import read_json
from pipeline.measure.record import Record
from pipeline.measure.text import WIKITEXT2
from pipeline.plan.run import Run
from pipeline.pruning.state import PruningState
from pipeline.report.data import Evaluation, RunReport, Sensitivity, Side
from pipeline.runs.listener import RunListener
from pipeline.settings.core import Config
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.store.summary import Summary


def report_of(run: Run, listener: RunListener, summary: Summary) -> RunReport:
    """Everything that is known of a finished run."""
    config, folder = run.config, run.folder.path
    shape = summary.shape
    assert shape is not None
    state = PruningState.from_pruning_config(shape, read_json(folder / "pruning_config.json"))
    return RunReport(
        name=summary.run,
        model_name=run.source.name,
        target_ratio=config.prune.target_ratio,
        state=state,
        device=summary.made_by["device"],
        settings=_shown_settings(config),
        dense=listener.dense,
        pruned=listener.records.get(len(listener.steps) - 1),
        steps=tuple(listener.steps),
        records=listener.records,
        sensitivity=_sensitivity(folder / "sensitivity.json"),
        evaluation=_evaluation(folder / "evaluation.json"),
        evaluation_text=_text_name(config.of(EvaluateConfig).text),
        probe_share=summary.probe_share,
        counts={
            "steps": summary.steps,
            "steps computed now": summary.steps_computed,
            "candidates scored now": summary.candidates_scored,
        },
    )


def _shown_settings(config: Config) -> dict[str, Any]:
    settings = config.model_dump(mode="json")
    return {name: settings[name] for name in ("model", "calibration", "prune", "probe", "evaluate")}


def _text_name(text: str | None) -> str:
    return "WikiText-2" if text in (None, WIKITEXT2) else Path(str(text)).name


def _sensitivity(path: Path) -> dict[str, Sensitivity]:
    if not path.exists():
        return {}
    return {name: Sensitivity.from_json(entry) for name, entry in read_json(path).items()}


def _evaluation(path: Path) -> dict[Side, Evaluation]:
    if not path.exists():
        return {}
    data = read_json(path)
    evaluation: dict[Side, Evaluation] = {}
    for side in get_args(Side):
        record = Record.from_json(data[side])
        evaluation[side] = Evaluation(record.tasks, record.ppl)
    return evaluation
