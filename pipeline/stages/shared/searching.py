"""The search of a method after its phases: it finds another state, and the way to it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.errors import ConfigError, StageError
from pipeline.evolution.base import Evaluate, Given, Search, Space
from pipeline.evolution.figures import figures_of
from pipeline.evolution.way import leading, way
from pipeline.files import Json
from pipeline.models.ordering import FILE, ChannelOrder, state_in
from pipeline.pruning.records import StepRecord
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import Candidate
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.evaluate import data_sources
from pipeline.stages.probe import ProbeConfig, is_due, probe_protocol
from pipeline.stages.shared.evaluations import StateEvaluator
from pipeline.stages.shared.measuring import Measurements
from pipeline.stages.shared.phases import phases_of

Walked = Sequence[tuple[StepRecord, PruningState]]
"""Steps, each with the state after it."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to, as a run shows it."""

    steps: Walked
    """From the dense model to the state that was found."""
    shown: Json
    """What is published of the search."""


def searched(config: Config, inputs: Inputs, search: Search, walked: Walked) -> Searched:
    """Search from where the phases ended, or from a given state.

    The steps are those of the phases as long as they lead to what was found, then one for each
    block or group, with what the search evaluates the state after it as. Raises ``StageError``
    where the given state does not fit the run.
    """
    dense = PruningState.dense(inputs.source.shape)
    phases = phases_of(config, inputs.source)
    states = [dense, *(state for _, state in walked)]
    if search.start:
        states = [_given_start(search, inputs)]
    given = Given(states, Space.of(phases), config.prune.target_ratio)
    evaluate = StateEvaluator(config, inputs)
    if evaluate.is_held_out_the_same:
        inputs.listener.on_warning(
            "the calibration windows for blocks and for widths are the same: what the search shows "
            "of held-out text is of the text that it searched on"
        )
    found = search.find(given, evaluate)
    evaluate.ahead([0.0], "the way to the state that was found")
    led = walked[: leading([state for _, state in walked], found.state)]
    begin = led[-1][1] if led else dense
    dimensions = [phase.dimension for phase in phases]
    ways = list(way(begin, found.state, given.space, dimensions))
    steps = [*led, *_evaluated(ways, begin, len(led), search, evaluate)]
    start, end = figures_of([given.last, found.state], evaluate)
    inputs.listener.on_note(
        f"{search.name}: {evaluate.computed:,} evaluations computed, "
        f"{evaluate.found:,} found on disk"
    )
    shown = {
        "search": search.name,
        "measure": search.measure,
        "settings": search.identity(),
        "target_ratio": given.target_percent,
        "steps_of_phases": len(led),
        "start": start.to_json(),
        "found": end.to_json(),
        "history": list(found.history),
        **found.more,
    }
    return Searched(steps, shown)


def tell(config: Config, inputs: Inputs, steps: Walked) -> None:
    """Measure the states of a run that was searched where that is due, and tell of its steps."""
    probe = config.of(ProbeConfig)
    measurements = Measurements(config, inputs, probe_protocol(config), data_sources(config))
    last = len(steps) - 1
    due = {
        step.step: inputs.live.cut(state)
        for step, state in steps
        if is_due(probe, step.step + 1) or (probe.every > 0 and step.step == last)
    }
    if due:
        dense = inputs.live.cut(PruningState.dense(inputs.source.shape))
        inputs.listener.on_ahead(measurements.missing([dense, *due.values()]))
        inputs.listener.on_dense(measurements.of(dense, "probing the dense model"))
    for step, _ in steps:
        variant = due.get(step.step)
        doing = f"probing after step {step.step}"
        record = measurements.of(variant, doing) if variant else None
        inputs.listener.on_step(step, record)


def _given_start(search: Search, inputs: Inputs) -> PruningState:
    """The state that a search is told to start from."""
    assert search.start
    beside = ChannelOrder.read(search.start.parent / FILE)
    own = inputs.live.order
    if beside and (own is None or own.digest != beside.digest):
        raise StageError(
            f"prune.start: the widths of {search.start} count in the order of channels that lies "
            f"beside it ({FILE}), and this run has another one; set prune.weight_reorder and the "
            "calibration text as that run had them"
        )
    try:
        return state_in(search.start, inputs.source.shape, own)
    except ConfigError as error:
        raise StageError(f"prune.start: {error.problems[0]}") from error


def _evaluated(
    ways: Sequence[tuple[str, Candidate]],
    begin: PruningState,
    steps_before: int,
    search: Search,
    evaluate: Evaluate,
) -> Iterator[tuple[StepRecord, PruningState]]:
    """Steps on a way, each with what the search evaluates the state after it as."""
    states = list(accumulate((each for _, each in ways), PruningState.without, initial=begin))[1:]
    scores = evaluate(states, search.measure)
    if scores and not math.isfinite(scores[-1]):
        raise StageError(
            f"the state that was found has no finite {search.measure}: the model or its precision "
            "is at fault; try model.dtype=float32. What was evaluated is kept"
        )
    for at, ((dimension, chosen), state) in enumerate(zip(ways, states, strict=True)):
        # a state on the way may have no finite number, and the last one has
        score = scores[at] if math.isfinite(scores[at]) else scores[-1]
        decision = Step(chosen, score, (ScoredCandidate(chosen, score),), criterion=search.name)
        number = steps_before + at
        yield StepRecord(number, dimension, decision, state.ratio_percent, state.params), state
