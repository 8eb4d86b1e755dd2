"""Going down the phases of a method in their order, as far as they are asked to go."""

from collections.abc import Generator, Sequence
from contextlib import closing

from pipeline.methods import method_of
from pipeline.pruning.phases import Phase
from pipeline.pruning.records import StepRecord
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs
from pipeline.stages.evaluate import data_sources
from pipeline.stages.probe import ProbeConfig, is_due, probe_protocol
from pipeline.stages.shared.ahead import NOTHING, Ahead
from pipeline.stages.shared.evaluations import StateEvaluator
from pipeline.stages.shared.measuring import Measurements
from pipeline.stages.shared.phases import phases_of
from pipeline.stages.shared.search import Search


def descend(
    config: Config, inputs: Inputs, phases: Sequence[Phase]
) -> Generator[tuple[StepRecord, PruningState], None, None]:
    """Every step from the dense model to the ends of ``phases``, probed where due, and its state.

    The listener hears of the steps that the run itself takes: the phases may go further than its
    own. Of a method that searches after its phases, those steps are not known yet: it hears of
    none, and nothing is probed.
    """
    search = Search(config, inputs)
    measurements = Measurements(config, inputs, probe_protocol(config), data_sources(config))
    probe, own = config.of(ProbeConfig), dict[str, float]()
    after = NOTHING
    if search_after := method_of(config.prune).search(config.prune):
        probe = probe.model_copy(update={"every": 0})
        evaluator = StateEvaluator(config, inputs)
        after = evaluator.work(search_after.most_states(evaluator.rungs))
    else:
        own = {phase.dimension: phase.end_percent for phase in phases_of(config, inputs.source)}
    state = PruningState.dense(inputs.source.shape)
    steps_before = 0
    measuring = measurements.work() if probe.every else NOTHING
    ahead = Ahead(config, inputs, search, phases, measuring, after)
    if is_due(probe, 0):
        dense = inputs.live.cut(state)
        ahead.tell(0, state, 0, first=measurements.missing([dense]))
        inputs.listener.on_dense(measurements.of(dense, "probing the dense model"))
    for place, phase in enumerate(phases):
        with closing(search.walk(phase, state, steps_before)) as steps:
            last = None
            while state.ratio_percent < phase.end_percent:
                ahead.tell(place, state, steps_before, last)
                step = next(steps, None)
                if step is None:
                    break
                is_own = state.ratio_percent < own.get(phase.dimension, 0.0)
                last, state = step.chosen, state.without(step.chosen)
                steps_before = step.step + 1
                is_last = state.ratio_percent >= config.prune.target_ratio and is_own
                due = is_due(probe, steps_before) or (probe.every > 0 and is_last)
                record = None
                if due:
                    doing = f"probing after step {step.step}"
                    record = measurements.of(inputs.live.cut(state), doing)
                if is_own:
                    inputs.listener.on_step(step, record)
                yield step, state
