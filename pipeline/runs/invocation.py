"""The inline executor: a plan's stages one after the other in this process."""

import platform
import time
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
import transformers

from pipeline.errors import LeaseLostError
from pipeline.files import Json, encode, replace
from pipeline.measure.record import Record
from pipeline.models.loading import LiveModel, load
from pipeline.models.prunable import PrunableModel, shape_from_config
from pipeline.models.source import ModelSource
from pipeline.plan.plan import Plan
from pipeline.pruning.state import PruningState
from pipeline.pruning.trajectory import Guard, Step
from pipeline.runs.display import Display
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, PlannedStage, StepRow
from pipeline.store.provenance import provenance
from pipeline.store.results import Store
from pipeline.store.run_folder import RunFolder
from pipeline.tracking.metrics import dense_metrics, step_metrics
from pipeline.tracking.tracker import Tracker


class Invocation:
    """One run of a plan in this process: listens to its stages and counts what was computed.

    With ``only``, of the stages that are not finished yet no others are run.
    """

    def __init__(
        self,
        config: Config,
        source: ModelSource,
        plan: Plan,
        folder: RunFolder,
        store: Store,
        display: Display,
        tracker: Tracker,
        only: Collection[str] | None = None,
    ) -> None:
        self.config, self.source, self.plan = config, source, plan
        self.folder, self.store = folder, store
        self.display, self.tracker = display, tracker
        self.only = only
        self.live = LiveModel(partial(load_dense, config, source))
        self.stages: dict[str, Json] = {}
        self.computed: dict[tuple[str, int], Step] = {}
        self.measured_s: list[float] = []
        self.dense: Record | None = None
        self.rows: list[StepRow] = []
        self.records: dict[int, Record] = {}
        self.warnings: list[str] = []

    def run(self) -> Json:
        """Run what is not in the store yet, and return the summary, which is also in the folder."""
        error: BaseException | None = None
        started = time.monotonic()
        try:
            for stage in self.plan.stages:
                if self.only is None or stage.name in self.only or self.store.finished(stage):
                    self._finish(stage)
        except BaseException as caught:
            error = caught
            raise
        finally:
            summary = self._summary(error, time.monotonic() - started)
            if not isinstance(error, LeaseLostError):  # else the run's folder is another process's
                if len(self.rows) >= self.folder.steps_written():
                    self._write_steps()
                self.folder.write_summary(summary)
        return summary

    @property
    def steps_computed(self) -> int:
        """Steps of the run that were computed here, not found."""
        return sum(row.source in self.computed for row in self.rows)

    def on_dense(self, record: Record) -> None:
        """The dense model was measured: the baseline of every curve."""
        if self.dense is None:
            self.dense = record
            total = shape_from_config(self.source.config).total_params
            self.tracker.log(dense_metrics(total, record))

    def on_step(self, row: StepRow, record: Record | None) -> None:
        """A step is on disk: show and track it, unless another stage told of it before."""
        if row.step < len(self.rows):
            return
        self.rows.append(row)
        if record:
            self.records[row.step] = record
        computed = row.source in self.computed
        if computed:
            self._write_steps()
        self.tracker.log(step_metrics(row, record))
        self.display.step(row, computed)

    def on_scored(self, share: float) -> None:
        """Part of a step's scoring is done."""
        self.display.scored(share)

    def on_computed(self, source: tuple[str, int], step: Step) -> None:
        """A step was computed here, not found."""
        self.computed[source] = step

    def on_measured(self, seconds: float) -> None:
        """A state was measured here, not found."""
        self.measured_s.append(seconds)

    def on_note(self, text: str) -> None:
        """Pass on a note."""
        self.display.note(text)

    def on_warning(self, text: str) -> None:
        """Pass on a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.display.warning(text)

    def _finish(self, stage: PlannedStage) -> None:
        entry: dict[str, Any] = {
            "key": stage.key,
            "status": "waiting",
            "seconds": 0.0,
            "candidates_scored": 0,
        }
        self.stages[stage.name] = entry
        if self.store.finished(stage) is None:
            with self.store.writer(stage, self.display.note) as guard:
                if self.store.finished(stage) is None:
                    self._compute(stage, guard, entry)
        if entry["status"] == "waiting":
            entry["status"] = "reused"
        self._take_over(stage)
        self.display.stage_ended(stage.name, entry["status"], entry["seconds"])

    def _compute(self, stage: PlannedStage, guard: Guard, entry: dict[str, Any]) -> None:
        entry["status"] = "failed"
        started, scored_before = time.monotonic(), self._candidates_scored()
        self.display.stage_started(stage.name)
        try:
            inputs, folder = self._inputs(stage), self.store.folder(stage)
            result = stage.stage.run(self.config, inputs, folder)
            replace(self.store.folder(stage) / "provenance.json", encode(provenance()))
            self.store.commit(stage, result, guard)
            entry["status"] = "new"
        finally:
            entry["seconds"] = round(time.monotonic() - started, 3)
            entry["candidates_scored"] = self._candidates_scored() - scored_before
            if entry["status"] == "failed":
                self.display.stage_ended(stage.name, "failed", entry["seconds"])

    def _take_over(self, stage: PlannedStage) -> None:
        """Bring a finished stage's files and steps into the run, whoever computed them."""
        self.folder.copy_from(self.store.folder(stage), *stage.stage.publishes)
        if stage.stage.replay:
            stage.stage.replay(self.config, self._inputs(stage))

    def _write_steps(self) -> None:
        if self.rows:
            self.folder.write_steps(self.rows, self.records)

    def _inputs(self, stage: PlannedStage) -> Inputs:
        return Inputs(
            stage=stage,
            source=self.source,
            weights=self.plan.weights,
            results={each.name: self.store.folder(each) for each in (*stage.needs, stage)},
            live=self.live,
            trajectories=self.store.trajectories,
            records=self.store.records,
            made_by=made_by(self.config.model.device),
            listener=self,
        )

    def _candidates_scored(self) -> int:
        return sum(len(step.scored) for step in self.computed.values())

    def _summary(self, error: BaseException | None, seconds: float) -> Json:
        finished = {stage.name: self.store.finished(stage) or {} for stage in self.plan.stages}
        last = self.rows[-1] if self.rows else None
        dense_ppl = finished.get("score", {}).get("dense_ppl", {})
        return {
            "run": self.folder.path.name,
            "status": "done" if error is None else "failed",
            "error": None if error is None else str(error) or type(error).__name__,
            "target_ratio": self.config.prune.target_ratio,
            "steps": len(self.rows),
            "ratio_percent": last.ratio_percent if last else 0.0,
            "params": last.params if last else None,
            "total_params": finished.get("prune", {}).get("total_params"),
            "ppl": last.importance if last else None,
            "dense_ppl": dense_ppl.get(last.dimension) if last else None,
            "evaluation": finished.get("evaluate") or None,
            "shape": shape_from_config(self.source.config).to_json(),
            "measured": {"dense": _json(self.dense), "pruned": _json(self._last_record())},
            "candidates_scored": self._candidates_scored(),
            "candidates_scored_in_full": sum(
                not s.estimated for step in self.computed.values() for s in step.scored
            ),
            "audit": self._audit(),
            "steps_computed": self.steps_computed,
            "states_measured": len(self.measured_s),
            "seconds": round(seconds, 3),
            "probe_share": self._probe_share(),
            "stages": self.stages,
            "warnings": self.warnings,
            "made_by": {**made_by(self.config.model.device), "host": platform.node()},
        }

    def _last_record(self) -> Record | None:
        """What was measured of the state in which the run ended."""
        return self.records.get(self.rows[-1].step) if self.rows else None

    def _audit(self) -> dict[str, int]:
        """How many of the run's steps were checked exhaustively, and decided otherwise."""
        audited = [row for row in self.rows if row.audited]
        return {
            "steps": len(audited),
            "decided_otherwise": sum(row.audited != row.chosen for row in audited),
        }

    def _probe_share(self) -> float | None:
        """Share of pruning's time that went into measuring; None where nothing was pruned now."""
        took = self.stages.get("prune", {}).get("seconds", 0.0)
        took += self.stages.get("probe", {}).get("seconds", 0.0)
        evaluating = 2 if self.stages.get("evaluate", {}).get("status") == "new" else 0
        probing = self.measured_s[: len(self.measured_s) - evaluating]
        return round(sum(probing) / took, 4) if took else None


def load_dense(config: Config, source: ModelSource, _state: PruningState) -> PrunableModel:
    """Load the dense model as a configuration wants it, reordered where it says so.

    It can become any state.
    """
    settings = config.model
    model = load(
        source, settings.dtype, settings.device, settings.attn_implementation, settings.offload
    )
    if config.prune.weight_reorder:
        model.reorder()
    return model


def made_by(device: str) -> dict[str, Any]:
    """What may change the last bits of a score, noted with everything that is computed."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": name}


def _json(record: Record | None) -> Json:
    return record.to_json() if record else None
