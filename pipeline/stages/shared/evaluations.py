"""Evaluating states for a search: found on disk, or computed together and stored."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain

import torch

from pipeline.errors import DamagedError
from pipeline.evolution.base import Measure, pieces_of
from pipeline.files import set_aside
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.evaluations import Evaluations
from pipeline.pruning.state import PruningState
from pipeline.scoring.divergence import DivergenceLoss, kullback_leibler
from pipeline.scoring.one_pass import WindowLoss, next_token_loss
from pipeline.scoring.perplexity import Windows, perplexity_of_losses
from pipeline.scoring.states import Levels, levels_of, losses_of_states
from pipeline.settings.core import Config
from pipeline.stages import order
from pipeline.stages.base import Inputs
from pipeline.stages.shared import identity
from pipeline.stages.shared.calibration import Calibration, digest_of_windows

AT_ONCE = 16
"""States that are computed before the first of them is stored: what a killed search loses."""
KIND = "evaluating states"
"""The kind of work, for whoever watches."""
TEXTS = {False: "block", True: "width"}
"""The calibration windows that are searched on, and those of other rows, which are held out."""


class StateEvaluator:
    """Evaluates states under one configuration, as ``evolution.base.Evaluate`` says.

    One process evaluates, whatever ranks there are.
    """

    def __init__(self, config: Config, inputs: Inputs) -> None:
        self.config, self.inputs = config, inputs
        self._calibration = Calibration.read(inputs.results["calibrate"])
        self._pieces = {
            held_out: pieces_of(*self._windows(held_out).ids.shape) for held_out in TEXTS
        }
        self._known: dict[tuple[Levels, Measure, bool, int], list[float]] = {}
        """Losses by what is left of each block, measure, text and piece."""
        self.computed = self.found = 0
        """States on pieces of text: what was computed here, and what was on disk."""
        self._divergences: dict[bool, DivergenceLoss] = {}

    @property
    def rungs(self) -> int:
        """Pieces of the text that is searched on."""
        return len(self._pieces[False])

    @property
    def is_held_out_the_same(self) -> bool:
        """Whether the text that is held out is that of the search."""
        hashes = self._calibration.hashes
        return hashes[TEXTS[False]] == hashes[TEXTS[True]]

    def __call__(
        self,
        states: Sequence[PruningState],
        measure: Measure,
        *,
        rung: int | None = None,
        held_out: bool = False,
    ) -> list[float]:
        """As ``Evaluate`` says."""
        pieces = range(len(self._pieces[held_out]))[: None if rung is None else rung + 1]
        keys = [levels_of(state) for state in states]
        by_key = dict(zip(keys, states, strict=True))
        for piece in pieces:
            self._learn(by_key, measure, held_out, piece)
        return [
            _number(measure, (self._known[key, measure, held_out, piece] for piece in pieces))
            for key in keys
        ]

    def ahead(self, states: Sequence[float], doing: str) -> None:
        """Tell the listener, in tokens."""
        self.inputs.listener.on_ahead(self.work(states))
        self.inputs.listener.on_doing(doing)

    def work(self, states: Sequence[float]) -> dict[str, float]:
        """What so many states on each piece take, as listeners are told it."""
        pieces = enumerate(states[: self.rungs])
        return {KIND: sum(count * self._tokens(False, piece) for piece, count in pieces)}

    def _learn(
        self, by_key: Mapping[Levels, PruningState], measure: Measure, held_out: bool, piece: int
    ) -> None:
        """Have the losses of states on a piece of text: remembered, found or computed."""
        unknown = [k for k in by_key if (k, measure, held_out, piece) not in self._known]
        if not unknown:
            return
        stored = self._stored(measure, held_out, piece)
        missing: dict[Levels, PruningState] = {}
        for key in unknown:
            losses = self._read(stored, by_key[key])
            if losses is None:
                missing[key] = by_key[key]
            else:
                self._known[key, measure, held_out, piece] = losses
        listener, tokens = self.inputs.listener, self._tokens(held_out, piece)
        self._count(0, len(unknown) - len(missing))
        in_order = sorted(missing)
        for start in range(0, len(in_order), AT_ONCE):
            keys = in_order[start : start + AT_ONCE]
            together = [missing[key] for key in keys]
            started = time.monotonic()
            losses_of = losses_of_states(
                self._model(),
                together,
                self._windows(held_out),
                self._pieces[held_out][piece],
                self._loss(measure, held_out),
                self.config.scoring.memory_fraction,
                partial(_told, listener.on_progress, tokens * len(together)),
            ).tolist()
            seconds = (time.monotonic() - started) / len(together)
            made_by = {**self.inputs.made_by, "seconds": seconds}
            for key, state, losses in zip(keys, together, losses_of, strict=True):
                known = stored.record(state, losses, made_by)
                self._known[key, measure, held_out, piece] = known
            self._count(len(together), 0)

    def _count(self, computed: int, found: int) -> None:
        self.computed, self.found = self.computed + computed, self.found + found
        self.inputs.listener.on_evaluated(computed, found)

    def _read(self, stored: Evaluations, state: PruningState) -> list[float] | None:
        """What is on disk; what is damaged there is set aside."""
        try:
            return stored.read(state)
        except DamagedError as damage:
            self.inputs.listener.on_warning(f"{set_aside(damage)}; the state is evaluated again")
            return None

    def _stored(self, measure: Measure, held_out: bool, piece: int) -> Evaluations:
        windows = self._windows(held_out)
        text = digest_of_windows(windows.ids[list(self._pieces[held_out][piece])], windows.eos_id)
        made_of = identity.of_evaluation(
            self.config, self.inputs.weights, self._order, text, measure
        )
        return self.inputs.evaluations.open(made_of)

    def _tokens(self, held_out: bool, piece: int) -> int:
        return len(self._pieces[held_out][piece]) * self._windows(held_out).ids.shape[1]

    def _windows(self, held_out: bool) -> Windows:
        return self._calibration.of(TEXTS[held_out])

    def _model(self) -> PrunableModel:
        """The dense model: from it every state can be walked."""
        dense = PruningState.dense(self.inputs.source.shape)
        return self.inputs.live.at(self.inputs.live.cut(dense))

    def _loss(self, measure: Measure, held_out: bool) -> WindowLoss:
        if measure == "perplexity":
            return next_token_loss
        if held_out not in self._divergences:
            self._divergences[held_out] = DivergenceLoss.of(
                self._model(),
                self._windows(held_out),
                self.config.scoring.memory_fraction,
                kullback_leibler,
            )
        return self._divergences[held_out]

    @cached_property
    def _order(self) -> str | None:
        folder = self.inputs.results.get(order.STAGE.name)
        return order.order_in(folder).digest if folder else None


def _number(measure: Measure, losses: Iterable[Sequence[float]]) -> float:
    """Of a state's losses on each piece; infinite where it is no finite number."""
    values = torch.tensor(list(chain.from_iterable(losses)), dtype=torch.float64)
    if measure == "perplexity":
        perplexity = perplexity_of_losses(values)
        return math.inf if perplexity is None else perplexity
    mean = values.mean().item()
    return mean if math.isfinite(mean) else math.inf


def _told(on_progress: Callable[[str, float], None], tokens: float, share: float) -> None:
    on_progress(KIND, share * tokens)
