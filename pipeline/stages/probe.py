"""Stage probe: what every step left of the model's perplexity, accuracy, speed and memory.

The prune stage measures while it goes, on the model that it has in memory. This stage fills in what
is missing: after another choice of probe, and for steps that another run took.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pipeline.errors import DamagedError
from pipeline.files import Json, encode, read_object, replace, understood
from pipeline.measure.record import DEFAULT_WORKLOAD, Record
from pipeline.pruning.records import read_steps
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.settings.section import LIKE_A_FOLDER, Section, SomeText
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import data_sources

if TYPE_CHECKING:
    from pipeline.measure.protocol import MeasurementProtocol


class Workload(Section):
    """Something that a model is timed at."""

    batch: int = Field(default=1, ge=1)
    """Sequences that are decoded together."""
    prompt_tokens: int = Field(default=128, ge=1)
    """Tokens of a prompt."""
    output_tokens: int = Field(default=32, ge=1)
    """Tokens decoded after it."""


WorkloadName = Annotated[str, Field(max_length=64), LIKE_A_FOLDER]


def _default_workloads() -> dict[str, Workload]:
    return {DEFAULT_WORKLOAD: Workload()}


class ProbeConfig(Section):
    """What is measured of the pruned model while pruning. Never changes what is decided."""

    key: ClassVar[str] = "probe"
    moved: ClassVar[Mapping[str, str]] = {
        name: f"workloads.{DEFAULT_WORKLOAD}.{name}" for name in Workload.model_fields
    }

    every: int = Field(ge=0)
    """Measure the dense model, every so many steps, and the last one; 0 measures nothing."""
    text: SomeText | None = None
    """Held-out text for perplexity: a file, wikitext2 or c4 (from evaluate.data_dir or the hub);
    null leaves perplexity out."""
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
    workloads: dict[WorkloadName, Workload] = Field(default_factory=_default_workloads)
    """What is timed, by name; the first is the main one. Each has batch (sequences that are decoded
    together), prompt_tokens and output_tokens (tokens decoded after a prompt)."""
    repeats: int = Field(5, ge=1)
    """Timed repetitions at most; CUDA graphs need no more than two that agree."""
    warmup: int = Field(1, ge=0)
    """Repetitions before those that are timed."""
    again: int = Field(0, ge=0)
    """Another number times all models once more, in records of their own."""


FILE = "probe.json"


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe measured along a run."""

    dense: Record
    records: dict[int, Record]
    """By the step after which it was measured."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        records = [{"step": number, **record.to_json()} for number, record in self.records.items()]
        return {"dense": self.dense.to_json(), "records": records}

    @classmethod
    def read(cls, path: Path) -> "Probed":
        """The inverse of ``to_json``, from a file. Raises ``DamagedError``."""
        data = read_object(path)
        if data is None:
            raise DamagedError(path, "it is missing")

        def parse() -> Probed:
            records = {entry["step"]: Record.from_json(entry) for entry in data["records"]}
            return cls(Record.from_json(data["dense"]), records)

        return understood(path, parse)


def is_due(probe: ProbeConfig, steps: int) -> bool:
    """Whether the state after so many steps is measured; 0 steps is the dense model."""
    return probe.every > 0 and steps % probe.every == 0


def probe_protocol(config: Config) -> "MeasurementProtocol":
    """What is measured after a step."""
    from pipeline.measure.protocol import MeasurementProtocol
    from pipeline.measure.text import Text
    from pipeline.measure.workloads import LatencySettings

    probe = config.of(ProbeConfig)
    workloads = [
        LatencySettings(
            name,
            repeats=probe.repeats,
            warmup=probe.warmup,
            again=probe.again,
            **workload.model_dump(),
        )
        for name, workload in probe.workloads.items()
    ]
    texts = [Text(Path(source).name, source, probe.text_tokens, probe.seqlen)
             for source in [probe.text] if source]  # fmt: skip
    return MeasurementProtocol(
        tuple(texts), tuple(probe.tasks), probe.items, tuple(workloads if probe.latency else ())
    )


def probe_recipe(planning: Planning) -> Recipe | None:
    """What is measured and how often; None where nothing is."""
    every = planning.config.of(ProbeConfig).every
    if not every:
        return None
    protocol, sources = probe_protocol(planning.config), data_sources(planning.config)
    measured = protocol.identity(sources, planning.source, planning.digest)
    names = [workload.workload for workload in protocol.workloads]
    return {"every": every, "protocol": measured, **({"workloads": names} if names else {})}


def recipe(planning: Planning) -> Recipe | None:
    """What is measured of which steps."""
    probes = probe_recipe(planning) if "prune" in planning.planned else None
    return probes and {"prune": planning.key("prune"), **probes}


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``probe.json``: the settings, and what was measured."""
    from pipeline.stages.shared.measuring import Measurements

    probe = config.of(ProbeConfig)
    measurements = Measurements(config, inputs, probe_protocol(config), data_sources(config))
    steps = read_steps(inputs.results["prune"] / "steps.jsonl")
    state = PruningState.dense(inputs.source.shape)
    dense = inputs.live.cut(state)
    due = {}
    for step in steps:
        state = state.without(step.chosen)
        is_last = step.step == len(steps) - 1
        if is_last or is_due(probe, step.step + 1):
            due[step.step] = inputs.live.cut(state)
    inputs.listener.on_ahead(measurements.missing([dense, *due.values()]))
    measured = Probed(measurements.of(dense, "the dense model"), {})
    inputs.listener.on_dense(measured.dense)
    for step in steps:
        if step.step in due:
            record = measurements.of(due[step.step], f"after step {step.step}")
            measured.records[step.step] = record
        inputs.listener.on_step(step, measured.records.get(step.step))
    replace(out_dir / FILE, encode({"settings": probe.model_dump(), **measured.to_json()}))
    return {"records": len(measured.records) + 1}


def replay(_config: Config, inputs: Inputs) -> None:
    """Tell of the dense model, and of the steps with what was measured after them."""
    measured = Probed.read(inputs.results["probe"] / FILE)
    inputs.listener.on_dense(measured.dense)
    for step in read_steps(inputs.results["prune"] / "steps.jsonl"):
        inputs.listener.on_step(step, measured.records.get(step.step))


def check(folder: Path, result: Json) -> None:
    """All records are there."""
    if len(Probed.read(folder / FILE).records) + 1 != result["records"]:
        raise DamagedError(folder / FILE, "records are missing")


STAGE = Stage(
    "probe", 50, recipe, run,
    needs=("prune",), section=ProbeConfig, keeps=(FILE,), tells_steps=True,
    replay=replay, check=check,
)  # fmt: skip
