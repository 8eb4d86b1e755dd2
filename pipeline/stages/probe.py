"""Stage probe: what every step left of the model's perplexity, accuracy, speed and memory.

The prune stage measures while it goes, on the model that it has in memory. This stage fills in what
is missing: after another choice of probe, and for steps that another run took.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pipeline.files import Json, replace
from pipeline.measure.record import Record
from pipeline.pruning.records import read_steps
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.settings.section import Section, Text
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import data_sources

if TYPE_CHECKING:
    from pipeline.measure.protocol import MeasurementProtocol


class ProbeConfig(Section):
    """What is measured of the pruned model while pruning. Never changes what is decided."""

    key: ClassVar[str] = "probe"

    every: int = Field(ge=0)
    """Measure the dense model, every so many steps, and the last one; 0 measures nothing."""
    text: Text | None = None
    """Held-out text for perplexity: a file, or wikitext2 (its test text, from evaluate.data_dir or
    the hub); null leaves perplexity out."""
    text_tokens: int = Field(8192, ge=2)
    """Tokens of it at most."""
    seqlen: int = Field(2048, ge=2)
    """Tokens in a window of it."""
    tasks: list[str] = Field(default_factory=list)
    """lm-eval tasks for accuracy."""
    items: int = Field(32, ge=1)
    """Items of each task."""
    latency: bool = False
    """Whether prefill and decoding are timed, and memory is measured."""
    batch: int = Field(1, ge=1)
    """Sequences that are decoded together."""
    prompt_tokens: int = Field(128, ge=1)
    """Tokens of a prompt."""
    output_tokens: int = Field(32, ge=1)
    """Tokens decoded after it."""
    repeats: int = Field(5, ge=1)
    """Timed repetitions."""
    warmup: int = Field(1, ge=0)
    """Repetitions before those that are timed."""


def is_due(probe: ProbeConfig, steps: int) -> bool:
    """Whether the state after so many steps is measured; 0 steps is the dense model."""
    return probe.every > 0 and steps % probe.every == 0


def probe_protocol(config: Config) -> "MeasurementProtocol":
    """What is measured after a step."""
    from pipeline.measure.latency import LatencySettings
    from pipeline.measure.protocol import MeasurementProtocol

    probe = config.of(ProbeConfig)
    latency = LatencySettings(
        probe.batch, probe.prompt_tokens, probe.output_tokens, probe.repeats, probe.warmup
    )
    return MeasurementProtocol(
        probe.text,
        probe.text_tokens,
        probe.seqlen,
        tuple(probe.tasks),
        probe.items,
        latency if probe.latency else None,
    )


def probe_recipe(planning: Planning) -> Recipe | None:
    """What is measured and how often; None where nothing is."""
    every = planning.config.of(ProbeConfig).every
    if not every:
        return None
    protocol, sources = probe_protocol(planning.config), data_sources(planning.config)
    measured = protocol.identity(sources, planning.source, planning.digest)
    return {"every": every, "protocol": measured}


def recipe(planning: Planning) -> Recipe | None:
    """What is measured of which steps."""
    probes = probe_recipe(planning) if "prune" in planning.planned else None
    return probes and {"prune": planning.key("prune"), **probes}


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``records.jsonl``: the dense model's record (step -1), then those of the steps."""
    from pipeline.stages.shared.measuring import Measurements

    measurements = Measurements(config, inputs, probe_protocol(config), data_sources(config))
    steps = read_steps(inputs.results["prune"] / "steps.jsonl")
    state = PruningState.dense(inputs.source.shape)
    records = {-1: measurements.of(inputs.live.cut(state))}
    inputs.listener.on_dense(records[-1])
    for step in steps:
        state = state.without(step.chosen)
        is_last = step.step == len(steps) - 1
        due = is_last or is_due(config.of(ProbeConfig), step.step + 1)
        record = measurements.of(inputs.live.cut(state)) if due else None
        if record:
            records[step.step] = record
        inputs.listener.on_step(step, record)
    lines = [json.dumps({"step": number, **r.to_json()}) + "\n" for number, r in records.items()]
    replace(out_dir / "records.jsonl", "".join(lines))
    return {"records": len(records)}


def replay(_config: Config, inputs: Inputs) -> None:
    """Tell of the dense model, and of the steps with what was measured after them."""
    lines = (inputs.results["probe"] / "records.jsonl").read_text(encoding="utf-8").splitlines()
    records = {line["step"]: Record.from_json(line) for line in map(json.loads, lines)}
    inputs.listener.on_dense(records[-1])
    for step in read_steps(inputs.results["prune"] / "steps.jsonl"):
        inputs.listener.on_step(step, records.get(step.step))


STAGE = Stage(
    "probe", 50, recipe, run,
    needs=("prune",), section=ProbeConfig, tells_steps=True, replay=replay,
)  # fmt: skip
