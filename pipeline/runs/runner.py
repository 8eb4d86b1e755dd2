"""A plan's stages, one after the other in this process."""

import platform
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
import transformers

from pipeline.errors import LeaseLostError
from pipeline.files import Json, mended
from pipeline.models.loading import DenseLoader, LiveModel
from pipeline.models.ordering import ChannelOrder
from pipeline.plan.run import Run
from pipeline.pruning.trajectory import Guard
from pipeline.runs.display import Display
from pipeline.runs.listener import RunListener
from pipeline.stages import order, probe
from pipeline.stages.base import Inputs, PlannedStage
from pipeline.stages.evaluate import given_order
from pipeline.stages.shared.phases import order_of, stored_order_of
from pipeline.store.provenance import provenance
from pipeline.store.summary import Audit, Measured, StageSummary, Summary, Work
from pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader


class StageRunner:
    """Runs the stages of a run that are not finished, and sums up what came of them.

    With ``only``, of the stages that are not finished no others are run. ``leader`` has the ranks
    that share the scoring; ``before`` is what this process has computed of the run already.
    """

    def __init__(
        self,
        run: Run,
        display: Display,
        tracker: Tracker,
        only: Collection[str] | None = None,
        leader: "Leader | None" = None,
        before: Work | None = None,
    ) -> None:
        self._run, self.plan, self.config, self.only = run, run.plan, run.config, only
        self.leader, self.before = leader, before or Work()
        self.store, self.folder, self.display = run.store, run.folder, display
        self.source = run.source
        self.shape = run.source.shape
        self.listener = RunListener(run.folder, self.shape, display, tracker)
        self.live: LiveModel | None = None
        self.stages: dict[str, StageSummary] = {}

    def run(self) -> Summary:
        """Run what is not in the store yet, and return the summary, which is also in the folder."""
        error: BaseException | None = None
        started = time.monotonic()
        try:
            self._recall()
            for stage in self.plan.stages:
                if self.only is None or stage.name in self.only or self.store.finished(stage):
                    self._finish(stage)
        except BaseException as caught:
            error = caught
            raise
        finally:
            summary = self._summary(error, time.monotonic() - started).plus([self.before])
            if not isinstance(error, LeaseLostError):  # else the run's folder is another process's
                self.folder.restore()
                self.listener.write_steps()
                summary.write(self.folder.path)
        return summary

    def _recall(self) -> None:
        """Without a probe now, what an earlier launch of the run probed stands beside its steps."""
        is_probed = any(probe.FILE in stage.stage.keeps for stage in self.plan.stages)
        if not is_probed and (kept := self.folder.kept(probe.FILE)):
            self.listener.recall(probe.Probed.read(kept[0]))
            self.listener.on_note(f"what was probed before is shown: {kept[0]}")

    def work(self) -> Work:
        """What this process has computed of the stages that it is to run."""
        own = self.stages if self.only is None else self.only
        work = Work(
            stages={name: entry for name, entry in self.stages.items() if name in own},
            steps_computed=self.listener.steps_computed,
            states_measured=self.listener.states_measured,
            states_evaluated=self.listener.states_evaluated,
            evaluations_found=self.listener.evaluations_found,
        )
        return work.plus(self.before)

    def _finish(self, stage: PlannedStage) -> None:
        self.listener.stage = stage
        self.stages[stage.name] = StageSummary(key=stage.key, status="waiting")
        mended(lambda: self._finish_whole(stage), self.listener.on_warning)

    def _finish_whole(self, stage: PlannedStage) -> None:
        """Raises ``DamagedError`` where something that it reads or writes is damaged."""
        self.store.begin(stage)
        if self.store.finished(stage) is None:
            with self.store.writer(stage, self.display.note) as guard:
                if self.store.result(stage) is None:
                    self._compute(stage, guard)
        entry = self.stages[stage.name]
        if entry.status == "waiting":
            entry = self.stages[stage.name] = StageSummary(key=stage.key, status="reused")
        self.folder.take(stage, self.store.folder(stage))
        if stage.stage.replay:
            stage.stage.replay(self.config, self._inputs(stage))
        if entry.status == "reused" and stage.stage.tells_steps:
            self.listener.write_steps()
        self.display.stage_ended(stage.name, entry.status, entry.seconds)

    def _compute(self, stage: PlannedStage, guard: Guard) -> None:
        started, scored_before = time.monotonic(), self.listener.candidates_scored
        passes_before = self.listener.passes
        self.display.stage_started(stage.name)
        is_done = False
        try:
            inputs, folder = self._inputs(stage), self.store.folder(stage)
            result = stage.stage.run(self.config, inputs, folder)
            self.store.note_provenance(stage, provenance())
            self.store.commit(stage, result, guard)
            if stage.stage.tells_steps:
                self.listener.write_steps()
            is_done = True
        finally:
            entry = self.stages[stage.name] = StageSummary(
                key=stage.key,
                status="new" if is_done else "failed",
                seconds=round(time.monotonic() - started, 3),
                candidates_scored=self.listener.candidates_scored - scored_before,
                measuring_seconds=self.listener.measuring_seconds.get(stage.name, {}),
                passes=self.listener.passes - passes_before,
            )
            if not is_done:
                self.display.stage_ended(stage.name, entry.status, entry.seconds)

    def _inputs(self, stage: PlannedStage) -> Inputs:
        return Inputs(
            stage=stage,
            source=self.source,
            weights=self.plan.weights,
            digest=self.store.digests.of,
            results={each.name: self.store.folder(each) for each in (*stage.needs, stage)},
            live=self._live(),
            trajectories=self.store.trajectories,
            records=self.store.records,
            evaluations=self.store.evaluations,
            made_by=made_by(self.config.model.device),
            listener=self.listener,
            leader=self.leader,
        )

    def _live(self) -> LiveModel:
        """The run's model; another one once the order of its channels is known."""
        loader = loader_of(self._run)
        if self.live is None or self.live.load != loader:
            self.live = LiveModel(loader, loader.lineage(self.plan.weights))
        return self.live

    def _summary(self, error: BaseException | None, seconds: float) -> Summary:
        facts: dict[str, Json] = {}
        for stage in self.plan.stages:
            if stage.stage.facts and (result := self.store.finished(stage)) is not None:
                for name, value in stage.stage.facts(result).items():
                    facts[name] = facts.get(name, {}) | value
        listener = self.listener
        last = listener.steps[-1] if listener.steps else None
        return Summary(
            run=self.folder.path.name,
            status="done" if error is None else "failed",
            error=None if error is None else str(error) or type(error).__name__,
            target_ratio=self.config.prune.target_ratio,
            steps=len(listener.steps),
            ratio_percent=last.ratio_percent if last else 0.0,
            params=last.params if last else None,
            total_params=self.shape.total_params,
            ppl=last.decision.perplexity if last else None,
            dense_ppl=facts.get("dense_ppl", {}).get(last.dimension) if last else None,
            evaluation=facts.get("evaluation"),
            exports=facts.get("exports", {}),
            model=self.source.name,
            origin=self.source.origin,
            shape=self.shape,
            measured=Measured(dense=listener.dense, pruned=listener.last_record),
            candidates_scored=listener.candidates_scored,
            passes=listener.passes,
            candidates_scored_in_full=listener.candidates_scored_in_full,
            audit=self._audit(),
            steps_computed=listener.steps_computed,
            states_measured=listener.states_measured,
            states_evaluated=listener.states_evaluated,
            evaluations_found=listener.evaluations_found,
            seconds=round(seconds, 3),
            probe_share=self._probe_share(),
            stages=self.stages,
            warnings=tuple(listener.warnings),
            made_by={**made_by(self.config.model.device), "host": platform.node()},
        )

    def _audit(self) -> Audit:
        """How many of the run's steps were checked exhaustively, and decided otherwise."""
        decisions = [step.decision for step in self.listener.steps]
        audited = [each for each in decisions if each.audited]
        otherwise = sum(each.audited != each.chosen for each in audited)
        return Audit(steps=len(audited), decided_otherwise=otherwise)

    def _probe_share(self) -> float | None:
        """Share of pruning's time that went into measuring; None where nothing was pruned now."""
        names = {stage.name for stage in self.plan.stages if stage.stage.tells_steps}
        entries = [entry for name, entry in self.stages.items() if name in names]
        took = sum(entry.seconds for entry in entries)
        probing = sum(sum(entry.measuring_seconds.values()) for entry in entries)
        return round(probing / took, 4) if took else None


def live_model_of(run: Run) -> LiveModel:
    """The run's model, not loaded yet; it comes to whatever variant is asked for."""
    loader = loader_of(run)
    return LiveModel(loader, loader.lineage(run.plan.weights))


def loader_of(run: Run) -> DenseLoader:
    """What loads the run's model, with its channels in order as far as that is known."""
    model = run.config.model
    return DenseLoader(
        run.source,
        model.dtype,
        model.device,
        model.attn_implementation,
        model.offload,
        reorder=_reorder(run),
        kept=run.store.weights,
    )


def _reorder(run: Run) -> bool | ChannelOrder:
    if given := given_order(run.config):
        return given
    if stored_order_of(run.config) is None:
        return order_of(run.config) is not None
    planned = run.plan.by_name.get(order.STAGE.name)
    is_made = planned is not None and run.store.finished(planned) is not None
    return order.order_in(run.store.folder(planned)) if planned and is_made else False


def made_by(device: str) -> dict[str, Any]:
    """What may change the last bits of a score, noted with everything that is computed."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": name}
