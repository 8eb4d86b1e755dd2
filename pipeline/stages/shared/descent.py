"""Going down the dimensions in their order, as far as they are asked to go."""

from collections.abc import Generator, Mapping
from contextlib import closing

from pipeline.models.prunable import shape_from_config
from pipeline.pruning.state import Dimension, PruningState
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, StepRow
from pipeline.stages.probe import ProbeConfig, is_due
from pipeline.stages.shared.measuring import Measurements, What
from pipeline.stages.shared.phases import ends_of
from pipeline.stages.shared.search import Search


def descend(
    config: Config, inputs: Inputs, ends: Mapping[Dimension, float]
) -> Generator[tuple[StepRow, PruningState], None, None]:
    """Every step from the dense model until ``ends``, probed where that is due, and its state.

    The listener is told of the steps that this run itself takes.
    """
    search = Search(config, inputs)
    measurements = Measurements(config, inputs, What.of_probe(config))
    probe, own = config.of(ProbeConfig), ends_of(config)
    state = PruningState.dense(shape_from_config(inputs.source.config))
    if is_due(probe, 0):
        inputs.listener.on_dense(measurements.of(state))
    taken_steps = 0
    for dimension, end in ends.items():
        with closing(search.walk(dimension, state)) as steps:
            while state.ratio_percent < end and (taken := next(steps, None)):
                is_own = state.ratio_percent < own[dimension]
                state = taken.state
                row = StepRow(
                    step=taken_steps,
                    dimension=dimension,
                    chosen=taken.step.chosen,
                    importance=taken.step.importance,
                    ratio_percent=state.ratio_percent,
                    params=state.params,
                    scored=taken.step.scored,
                    source=taken.source,
                    audited=taken.step.audited,
                )
                taken_steps += 1
                is_last = state.ratio_percent >= config.prune.target_ratio and is_own
                due = is_due(probe, taken_steps) or (probe.every > 0 and is_last)
                record = measurements.of(state) if due else None
                if is_own:
                    inputs.listener.on_step(row, record)
                yield row, state
