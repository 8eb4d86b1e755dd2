"""The inline executor: a plan's stages one after the other in this process."""

import platform
import time
from functools import partial
from typing import Any

import torch
import transformers

from pipeline.config import Config
from pipeline.execution.plan import Plan
from pipeline.execution.run_folder import RunFolder, read_last_step
from pipeline.execution.store import Stage, Store
from pipeline.files import Json
from pipeline.models.loading import LiveModel, load
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import ModelSource
from pipeline.progress import Display
from pipeline.pruning.trajectory import Guard
from pipeline.stages import STAGES
from pipeline.stages.base import Inputs, StepRow


class Invocation:
    """One run of a plan in this process: listens to its stages and counts what was computed."""

    def __init__(
        self,
        config: Config,
        source: ModelSource,
        plan: Plan,
        folder: RunFolder,
        store: Store,
        display: Display,
    ) -> None:
        self.config, self.source, self.plan = config, source, plan
        self.folder, self.display = folder, display
        self.store = store
        self.live = LiveModel(partial(load_dense, config, source))
        self.stages: dict[str, Json] = {}
        self.computed: dict[tuple[str, int], int] = {}
        self.rows: list[StepRow] = []
        self.warnings: list[str] = []

    def run(self) -> Json:
        """Run what is not in the store yet, and return the summary, which is also in the folder."""
        error: BaseException | None = None
        try:
            for stage in self.plan.stages:
                self._finish(stage)
            done = self.store.folder(self.plan.result)
            self.folder.copy_from(done, "pruning_config.json", "steps.jsonl")
        except BaseException as caught:
            error = caught
            raise
        finally:
            if error is not None and len(self.rows) > self.folder.steps_written():
                self.folder.write_steps(self.rows)
            summary = self._summary(error)
            self.folder.write_summary(summary)
        return summary

    def on_step(self, row: StepRow) -> None:
        """A step of the run is on disk: show it, and keep ``steps.jsonl`` up with the new ones."""
        self.rows.append(row)
        computed = row.source in self.computed
        if computed:
            self.folder.write_steps(self.rows)
        self.display.step(row, computed)

    def on_scored(self, share: float) -> None:
        """Part of a step's scoring is done."""
        self.display.scored(share)

    def on_computed(self, source: tuple[str, int], candidates: int) -> None:
        """A step was computed here, not found."""
        self.computed[source] = candidates

    def on_note(self, text: str) -> None:
        """Pass on a note."""
        self.display.note(text)

    def on_warning(self, text: str) -> None:
        """Pass on a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.display.warning(text)

    def _finish(self, stage: Stage) -> None:
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
        self.display.stage_ended(stage.name, entry["status"], entry["seconds"])

    def _compute(self, stage: Stage, guard: Guard, entry: dict[str, Any]) -> None:
        entry["status"] = "failed"
        started, scored_before = time.monotonic(), self._candidates_scored()
        self.display.stage_started(stage.name)
        try:
            result = STAGES[stage.name](self.config, self._inputs(stage), self.store.folder(stage))
            self.store.commit(stage, result, guard)
            entry["status"] = "new"
        finally:
            entry["seconds"] = round(time.monotonic() - started, 3)
            entry["candidates_scored"] = self._candidates_scored() - scored_before
            if entry["status"] == "failed":
                self.display.stage_ended(stage.name, "failed", entry["seconds"])

    def _inputs(self, stage: Stage) -> Inputs:
        return Inputs(
            source=self.source,
            weights=self.plan.weights,
            results={needed.name: self.store.folder(needed) for needed in stage.needs},
            live=self.live,
            trajectories=self.store.trajectories,
            made_by=_made_by(self.config.model.device),
            listener=self,
        )

    def _candidates_scored(self) -> int:
        return sum(self.computed.values())

    def _summary(self, error: BaseException | None) -> Json:
        finished = {stage.name: self.store.finished(stage) or {} for stage in self.plan.stages}
        last = read_last_step(self.folder.path)
        dense_ppl = finished.get("score", {}).get("dense_ppl", {})
        return {
            "run": self.folder.path.name,
            "status": "done" if error is None else "failed",
            "error": None if error is None else str(error) or type(error).__name__,
            "target_ratio": self.config.prune.target_ratio,
            "steps": last["step"] + 1 if last else 0,
            "ratio_percent": last["ratio_percent"] if last else 0.0,
            "params": last["params"] if last else None,
            "total_params": finished["prune"].get("total_params"),
            "ppl": last["importance"] if last else None,
            "dense_ppl": dense_ppl.get(last["dimension"]) if last else None,
            "candidates_scored": self._candidates_scored(),
            "steps_computed": sum(row.source in self.computed for row in self.rows),
            "stages": self.stages,
            "warnings": self.warnings,
            "made_by": {**_made_by(self.config.model.device), "host": platform.node()},
        }


def load_dense(config: Config, source: ModelSource) -> PrunableModel:
    """Load the dense model as a configuration wants it, reordered where it says so."""
    settings = config.model
    model = load(source, settings.dtype, settings.device, settings.attn_implementation)
    if config.prune.weight_reorder:
        model.reorder()
    return model


def _made_by(device: str) -> dict[str, Any]:
    """What may change the last bits of a score, noted with everything that is computed."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": name}
