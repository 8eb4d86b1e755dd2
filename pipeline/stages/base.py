"""What a stage is: how it is planned, what it is given, whom it tells."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.files import Json, key_of
from pipeline.measure.record import Record
from pipeline.pruning.evaluations import EvaluationStore
from pipeline.pruning.records import StepRecord
from pipeline.pruning.steps import Step
from pipeline.pruning.trajectory import TrajectoryStore
from pipeline.settings.core import Config
from pipeline.settings.section import Section
from pipeline.stages.shared import identity

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader
    from pipeline.models.loading import LiveModel
    from pipeline.models.source import ModelSource
    from pipeline.recovery.base import Progress

Recipe = dict[str, Any]
"""Everything that decides a stage's result, as plain JSON; its inputs by their keys."""


@dataclass(frozen=True)
class Stage:
    """One kind of work. A file of this folder declares one as ``STAGE``."""

    name: str
    order: int
    """Stages are planned and run from low to high; a stage needs only those before it."""
    recipe: "Callable[[Planning], Recipe | None]"
    """What decides the result; None where the configuration does not want the stage."""
    run: "Callable[[Config, Inputs, Path], Json]"
    """Does the work: writes files into the folder that it is given, and returns the result."""
    needs: tuple[str, ...] = ()
    """Stages whose results it reads; those that are not planned are left out."""
    section: type[Section] | None = None
    """Its keys in the configuration."""
    publishes: tuple[str, ...] = ()
    """Files of its folder that are copied into the run's folder."""
    may_publish: tuple[str, ...] = ()
    """The same of files that it does not always write."""
    keeps: tuple[str, ...] = ()
    """Files of its folder that are kept in the run's, beside those of other settings."""
    tells_steps: bool = False
    """Whether it tells the listener of the run's steps."""
    replay: "Callable[[Config, Inputs], None] | None" = None
    """Once it is finished, by whomever: tells the listener of the steps in ``inputs.results``."""
    facts: Callable[[Json], Mapping[str, Json]] | None = None
    """What the run's summary takes of its result: ``evaluation``, ``dense_ppl`` by dimension."""
    check: Callable[[Path, Json], None] | None = None
    """Raises for a folder and a result that do not belong together. Only asked of what earlier
    versions finished, which has no digests."""
    is_main: bool = False
    """Whether a run is for this one: processes of several stages are called after it."""
    recovers: bool = False
    """Whether its folder has values for the pruned model's weights (``shared/recovered.py``)."""
    resources: str | None = None
    """The stage whose ``cluster.stages`` its jobs take; None has its own."""
    plan: "Callable[[Stage, Planning], Iterable[PlannedStage]]" = lambda stage, planning: (
        planning.one(stage)
    )
    """The stages that a run gets: one, or none where the recipe is None."""


@dataclass(frozen=True)
class PlannedStage:
    """One piece of work of a plan. Two configurations that need the same recipe share it."""

    stage: Stage
    name: str
    recipe: Recipe
    needs: tuple["PlannedStage", ...] = ()

    @cached_property
    def key(self) -> str:
        """Hash of the recipe."""
        return key_of({"stage": self.name, **self.recipe})

    @property
    def resources(self) -> str:
        """The stage under which the configuration has what its job asks for."""
        return self.stage.resources or self.stage.name


@dataclass(frozen=True)
class Planning:
    """What a stage may look at when it is planned: no model, no GPU."""

    config: Config
    """``model.device`` is not "auto"."""
    source: "ModelSource"
    weights: str
    """Digest that stands for the model's weights and architecture."""
    digest: Callable[[Path], str]
    """SHA-256 of a file."""
    reach: Mapping[str, float] = field(default_factory=dict)
    """How far, in percent removed, a dimension is pruned for all runs of a sweep that share it."""
    planned: dict[str, PlannedStage] = field(default_factory=dict)
    """Stages planned so far, by name."""

    @property
    def model(self) -> Recipe:
        """What stands for the model as it is scored and measured."""
        order = self.planned.get("order")
        return identity.of_model(self.config, self.weights, order.key if order else None)

    def key(self, name: str) -> str:
        """The key of a stage that was planned before."""
        return self.planned[name].key

    def one(self, stage: Stage, needs: Iterable[str] | None = None) -> Iterable[PlannedStage]:
        """The stage as its recipe says, once or not at all."""
        recipe = stage.recipe(self)
        if recipe is not None:
            yield PlannedStage(stage, stage.name, recipe, self.those(needs or stage.needs))

    def those(self, names: Iterable[str]) -> tuple[PlannedStage, ...]:
        """Of the stages with these names those that are planned."""
        return tuple(self.planned[name] for name in names if name in self.planned)


class Listener(Protocol):
    """Is told what a stage does, while it does it."""

    def on_dense(self, record: Record) -> None:
        """The dense model was measured."""

    def on_dense_ppl(self, ppl: float) -> None:
        """The dense model's perplexity on the calibration text of the run's first dimension."""

    def on_step(self, step: StepRecord, record: Record | None) -> None:
        """A step of the run is on disk, measured or not. May come again, from another stage."""

    def on_pass(self) -> None:
        """Statistics or gradients were computed here: one pass over the calibration text."""

    def on_measured(self, seconds: Mapping[str, float]) -> None:
        """A state was measured here, not found on disk: the time of each kind of measurement."""

    def on_learning(self, technique: str, progress: "Progress") -> None:
        """A technique of recovery has come so far."""

    def on_learned(self, technique: str, curve: Sequence[Mapping[str, Json]]) -> None:
        """What a technique of recovery, now or earlier, told on its way: one entry for each point.

        Each has tokens, loss and lr, and held_out (perplexities by text) where it was measured.
        """

    def on_ahead(self, ahead: Mapping[str, float]) -> None:
        """What the stage has to do from now on, by kind of work; told again where it changes.

        In tokens that go through the model, about: so kinds that were not timed yet can be
        compared with those that were.
        """

    def on_doing(self, what: str) -> None:
        """What it does now, for a person."""

    def on_progress(self, kind: str, tokens: float) -> None:
        """So much of that kind of work was done since this or ``on_doing`` was called last."""

    def on_computed(self, source: tuple[str, int], step: Step) -> None:
        """A step was computed here: its trajectory and index, and what came of it."""

    def on_evaluated(self, computed: int, found: int) -> None:
        """A search evaluated so many states on a piece of text, and found so many on disk."""

    def on_note(self, text: str) -> None:
        """Something that a person may want to know."""

    def on_warning(self, text: str) -> None:
        """Something that a person must know."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A stage's inputs. Everything is handed in; a stage looks nothing up."""

    stage: PlannedStage
    """The stage itself."""
    source: "ModelSource"
    weights: str
    """Digest that stands for the model's weights and architecture."""
    digest: Callable[[Path], str]
    """SHA-256 of a file."""
    results: Mapping[str, Path]
    """Folders of the stages that this one needs, and its own, by stage."""
    live: "LiveModel"
    trajectories: TrajectoryStore
    records: Path
    """Folder of what was measured, shared like the trajectories."""
    evaluations: EvaluationStore
    """What searches know of states, shared likewise."""
    made_by: Mapping[str, Any]
    """Versions and device, noted with everything that is computed."""
    listener: Listener
    leader: "Leader | None" = None
    """The ranks that share the scoring; None where this process scores alone."""
