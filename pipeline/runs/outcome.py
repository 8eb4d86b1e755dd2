"""What a finished run is shown as: its files gathered into a report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from pipeline.measure.record import Record
from pipeline.plan.run import Run
from pipeline.pruning.state import PruningState
from pipeline.report.data import MODELS, Evaluated, RunReport, Sensitivity
from pipeline.runs.listener import RunListener
from pipeline.settings.core import Config
from pipeline.stages import calibrate
from pipeline.stages.calibrate import CalibrationConfig
from pipeline.stages.prune import SEARCH
from pipeline.stages.recover import RecoverConfig
from pipeline.stages.shared.recovered import FACTS
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
        origin=run.source.origin,
        state=state,
        device=summary.made_by["device"],
        settings=_shown_settings(config),
        dense=listener.dense,
        pruned=listener.records.get(len(listener.steps) - 1),
        steps=tuple(listener.steps),
        records=listener.records,
        sensitivity=_sensitivity(folder / "sensitivity.json"),
        calibration_text=_calibration_text(config.of(CalibrationConfig)) + _begins(run),
        evaluations=tuple(map(_evaluated, run.folder.kept("evaluation.json"))),
        techniques=tuple(config.of(RecoverConfig).steps),
        watched=_watched(run),
        learning=_learning(run.folder.kept(FACTS)),
        search=read_json(folder / SEARCH) if (folder / SEARCH).exists() else None,
        exports=summary.exports,
        probe_share=summary.probe_share,
        counts={
            "steps": summary.steps,
            "steps computed now": summary.steps_computed,
            "candidates scored now": summary.candidates_scored,
            **_evaluations(summary),
        },
    )


def _evaluations(summary: Summary) -> dict[str, int]:
    """Of a run that searches, what was evaluated."""
    counts = {
        "states evaluated now": summary.states_evaluated,
        "evaluations found": summary.evaluations_found,
    }
    return counts if any(counts.values()) else {}


def _shown_settings(config: Config) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude={"prune": {"until"}})
    shown = ["model", "calibration", "prune", "probe", "evaluate"]
    return {name: settings[name] for name in [*shown, *_recovers(config)]}


def _recovers(config: Config) -> list[str]:
    return [RecoverConfig.key] if config.of(RecoverConfig).steps else []


def _calibration_text(calibration: CalibrationConfig) -> str:
    """Text and windows in words."""
    if calibration.dataset == "tokens":
        return Path(str(calibration.path)).name
    name = Path(calibration.path).name if calibration.path else calibration.dataset
    return (
        f"{name}, {calibration.block_samples:,} rows for blocks, {calibration.width_samples:,} for "
        f"widths, windows of {calibration.seqlen:,}"
    )


def _begins(run: Run) -> str:
    """What every window begins with, where that is anything."""
    planned = run.plan.by_name.get(calibrate.STAGE.name)
    facts = run.store.finished(planned) if planned else None
    begin = ((facts or {}).get("begins") or {}).get("window")
    return f", {begin} before each" if begin else ""


def _sensitivity(path: Path) -> dict[str, Sensitivity]:
    if not path.exists():
        return {}
    return {name: Sensitivity.from_json(entry) for name, entry in read_json(path).items()}


def _evaluated(path: Path) -> Evaluated:
    data = read_json(path)
    records = (Record.from_json(data[side]) if side in data else None for side in MODELS)
    return Evaluated(*records)


def _watched(run: Run) -> dict[str, tuple[float, float]]:
    """What held-out texts told of recovery, by their names."""
    recoveries = [run.store.folder(each) for each in run.plan.stages if each.stage.recovers]
    told = [read_json(folder / FACTS).get("held_out") or {} for folder in recoveries]
    if not told:
        return {}
    ends = {name: (told[0][name]["before"], told[-1][name]["after"])
            for name in told[0] if name in told[-1]}  # fmt: skip
    return {name: each for name, each in ends.items() if None not in each}


def _learning(paths: Iterable[Path]) -> dict[str, Any]:
    """The learning curve of every technique, as it was done last."""
    facts = [read_json(path) for path in paths]
    return {each["technique"]: each["learning"] for each in reversed(facts) if each["learning"]}
