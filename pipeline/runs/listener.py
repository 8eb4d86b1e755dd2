"""What a process learns of a run from its stages, passed on to a person and to the trackers."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.measure.record import Record
from pipeline.pruning.records import StepRecord
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.recovery.base import Progress
from pipeline.runs.display import Display
from pipeline.stages.base import PlannedStage
from pipeline.stages.probe import Probed
from pipeline.store.run_folder import RunFolder
from pipeline.store.summary import summed
from pipeline.tracking.metrics import (
    active_metrics,
    dense_metrics,
    learning_metrics,
    step_metrics,
)
from pipeline.tracking.tracker import Tracker

WRITING = 0.1
"""The largest share of the time that goes to ``steps.jsonl`` where steps come fast."""


class RunListener:
    """Collects the steps of a run and what was computed here; keeps ``steps.jsonl`` up to date."""

    def __init__(
        self, folder: RunFolder, shape: ModelShape, display: Display, tracker: Tracker
    ) -> None:
        self.folder, self.display, self.tracker = folder, display, tracker
        self.state = PruningState.dense(shape)
        """After the steps of the run that it was told of."""
        self.stage: PlannedStage | None = None
        """The stage that runs now."""
        self.dense: Record | None = None
        self.dense_ppl: float | None = None
        """On the calibration text of the run's first dimension."""
        self.recalled: dict[int, Record] = {}
        """What an earlier launch measured, for steps that this one does not measure."""
        self.steps: list[StepRecord] = []
        self.records: dict[int, Record] = {}
        self.computed: dict[tuple[str, int], Step] = {}
        """Steps that were computed here, by trajectory and index."""
        self.passes = 0
        """Statistics and gradients that were computed here."""
        self.states_measured = 0
        self.states_evaluated = self.evaluations_found = 0
        """What a search computed of states and pieces of text, and what it found on disk."""
        self.measuring_seconds: dict[str, dict[str, float]] = {}
        """Time that measuring took, by stage and kind of measurement."""
        self.warnings: list[str] = []
        self._learnt = 0
        self._logged_dense = False
        self._write_from = 0.0
        """When ``steps.jsonl`` may be written again, by the monotonic clock."""

    @property
    def steps_computed(self) -> int:
        """Steps of the run that were computed here, not found."""
        return sum(step.source in self.computed for step in self.steps)

    @property
    def candidates_scored(self) -> int:
        """Candidates of the steps that were computed here."""
        return sum(step.evaluations for step in self.computed.values())

    @property
    def candidates_scored_in_full(self) -> int:
        """Those of them whose score is no estimate."""
        scored = [s for step in self.computed.values() for s in step.scored]
        return sum(not s.estimated and not s.kept for s in scored)

    @property
    def last_record(self) -> Record | None:
        """What was measured of the state in which the run ended."""
        return self.records.get(self.steps[-1].step) if self.steps else None

    def write_steps(self) -> None:
        """Write ``steps.jsonl``, unless it has more steps: a restart may have come to fewer."""
        if self.steps and len(self.steps) >= self.folder.steps_written():
            self.folder.write_steps(self.steps, self.records)

    def recall(self, probed: Probed) -> None:
        """Show what an earlier launch measured, too."""
        self.recalled = probed.records
        self.on_dense(probed.dense)

    def on_dense(self, record: Record) -> None:
        """The dense model was measured: the baseline of every curve."""
        if self.dense is None:
            self.dense = record
            if self.stage:  # else the stage that tells of its perplexity is still to come
                self._log_dense()

    def on_dense_ppl(self, ppl: float) -> None:
        """The dense model's perplexity is known."""
        self.dense_ppl = ppl

    def _log_dense(self) -> None:
        """The first row, where there is anything to say of the dense model."""
        if not self._logged_dense and (self.dense or self.dense_ppl):
            self._logged_dense = True
            dense = PruningState.dense(self.state.shape)
            row = dense_metrics(dense.shape.total_params, self.dense, self.dense_ppl)
            self.tracker.log(row | active_metrics(dense))

    def on_step(self, step: StepRecord, record: Record | None) -> None:
        """A step is on disk: show and track it, unless another stage told of it before."""
        if step.step < len(self.steps):
            return
        self._log_dense()
        self.steps.append(step)
        record = record or self.recalled.get(step.step)
        if record:
            self.records[step.step] = record
        is_computed = step.source in self.computed
        started = time.monotonic()
        if is_computed and started >= self._write_from:
            self.folder.write_steps(self.steps, self.records)
            self._write_from = started + (time.monotonic() - started) / WRITING
        self.state = self.state.without(step.chosen)
        self.tracker.log(step_metrics(step, record) | active_metrics(self.state))
        self.display.step(step, is_computed)

    def on_learning(self, technique: str, progress: Progress) -> None:
        """A technique of recovery has come so far."""
        self.display.learning(technique, progress)

    def on_learned(self, technique: str, curve: Sequence[Mapping[str, Any]]) -> None:
        """Track a learning curve, after the steps and what was learnt before."""
        for point in curve:
            self._learnt += 1
            self.tracker.log(learning_metrics(len(self.steps) + self._learnt, technique, point))

    def on_ahead(self, ahead: Mapping[str, float]) -> None:
        """Pass on what the stage has to do."""
        self.display.ahead(ahead)

    def on_doing(self, what: str) -> None:
        """Pass on what it does now."""
        self.display.doing(what)

    def on_progress(self, kind: str, tokens: float) -> None:
        """Pass on what it has done."""
        self.display.progress(kind, tokens)

    def on_computed(self, source: tuple[str, int], step: Step) -> None:
        """A step was computed here, not found."""
        self.computed[source] = step

    def on_pass(self) -> None:
        """Statistics or gradients were computed here, not found."""
        self.passes += 1

    def on_evaluated(self, computed: int, found: int) -> None:
        """A search evaluated states here, and found others."""
        self.states_evaluated += computed
        self.evaluations_found += found

    def on_measured(self, seconds: Mapping[str, float]) -> None:
        """A state was measured here, not found."""
        self.states_measured += 1
        if self.stage:
            before = self.measuring_seconds.get(self.stage.name, {})
            self.measuring_seconds[self.stage.name] = summed(before, seconds)

    def on_note(self, text: str) -> None:
        """Pass on a note."""
        self.display.note(text)

    def on_warning(self, text: str) -> None:
        """Pass on a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.display.warning(text)
