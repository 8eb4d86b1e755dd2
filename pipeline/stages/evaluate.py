"""Stage evaluate: the dense and the pruned model side by side, on full tasks and text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from pipeline.files import Json, encode, replace
from pipeline.measure.record import Record, tasks_protocol
from pipeline.models.ordering import FILE, ChannelOrder, state_in
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.settings.section import LIKE_A_FOLDER, Execution, Section, SomeText
from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe, Stage
from pipeline.stages.shared.recovered import (
    is_recovered,
    recovered,
    recovered_recipe,
    recoveries,
)

if TYPE_CHECKING:
    from pipeline.measure.protocol import DataSources, MeasurementProtocol

TextName = Annotated[str, Field(max_length=64), LIKE_A_FOLDER]


class EvaluateConfig(Section):
    """The full evaluation of the dense and the pruned model."""

    key: ClassVar[str] = "evaluate"

    tasks: list[str] = Field(default_factory=list)
    """lm-eval tasks with choices or one answer; accuracy is averaged, acc_norm where it is told."""
    limit: int | None = Field(None, ge=1)
    """Items of each task at most; null takes all."""
    data_dir: SomeText | None = None
    """Folder of local copies, TASK/SPLIT.jsonl; null takes the hub's."""
    task_files: dict[str, SomeText] = Field(default_factory=dict)
    """Multiple-choice tasks of your own: .jsonl files of {"context", "choices", "label"}."""
    batch_size: Execution[int | None] = Field(None, ge=1)
    """Sequences of a task that are read together, fewer where memory runs out; null takes what
    suits the device."""
    texts: dict[TextName, SomeText] = Field(default_factory=dict)
    """Texts for perplexity, each by a name of yours: a file, wikitext2 or c4; e.g.
    {wikitext2: wikitext2, mine: notes.txt}."""
    text: SomeText | None = None
    """One text in the place of those in texts, in short: a file, wikitext2 or c4."""
    text_tokens: int | None = Field(None, ge=2)
    """Tokens of each text at most; null takes all."""
    seqlen: int = Field(2048, ge=2)
    """Tokens in a window of them."""
    pruning_config: SomeText | None = None
    """Evaluate this pruning_config.json instead of pruning."""

    @classmethod
    def problems(cls, given: Mapping[str, Json]) -> Iterator[str]:
        """Names of no task: told here, before anything that takes long is imported."""
        from pipeline.measure.tasks import unknown

        tasks, own = given.get("tasks"), given.get("task_files")
        for name in tasks if isinstance(tasks, list) else ():
            if problem := unknown(str(name), own if isinstance(own, Mapping) else ()):
                yield f"{cls.key}.tasks: {problem}"

    @property
    def enabled(self) -> bool:
        """Whether anything is evaluated."""
        return bool(self.tasks or self.sources)

    @property
    def sources(self) -> dict[str, str]:
        """Every text by its name."""
        return {Path(self.text).name: self.text} if self.text else self.texts


def prunes(config: Config) -> bool:
    """Whether the run prunes; with a given ``pruning_config.json`` it only evaluates."""
    return config.of(EvaluateConfig).pruning_config is None


def evaluation_protocol(config: Config) -> "MeasurementProtocol":
    """What is measured at the end."""
    from pipeline.measure.protocol import MeasurementProtocol
    from pipeline.measure.text import Text

    evaluate = config.of(EvaluateConfig)
    texts = tuple(
        Text(name, source, evaluate.text_tokens, evaluate.seqlen)
        for name, source in evaluate.sources.items()
    )
    return MeasurementProtocol(texts, tuple(evaluate.tasks), evaluate.limit)


def data_sources(config: Config) -> "DataSources":
    """Folder of local data, and the user's own tasks; the probe reads from them, too."""
    from pipeline.measure.protocol import DataSources

    evaluate = config.of(EvaluateConfig)
    data_dir = Path(evaluate.data_dir) if evaluate.data_dir else None
    files = {name: Path(path) for name, path in evaluate.task_files.items()}
    return DataSources(data_dir, files, evaluate.batch_size)


def evaluation_recipe(planning: Planning) -> Recipe:
    """What is evaluated of any state of the model."""
    protocol, sources = evaluation_protocol(planning.config), data_sources(planning.config)
    measured = protocol.identity(sources, planning.source, planning.digest)
    names = list(planning.config.of(EvaluateConfig).sources)
    return {"model": planning.model, "protocol": measured, "texts": names}


def recipe(planning: Planning) -> Recipe | None:
    """What is evaluated of the pruned model, or of a given ``pruning_config.json``."""
    settings = planning.config.of(EvaluateConfig)
    if settings.pruning_config:
        return evaluation_recipe(planning) | given_recipe(planning)
    if not settings.enabled:
        return None
    return evaluation_recipe(planning) | {"prune": planning.key("prune")}


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """The pruned model, and the recovered one where there is one."""
    if (decides := recipe(planning)) is not None:
        needs = (*planning.those(stage.needs), *recoveries(planning))
        yield PlannedStage(stage, stage.name, decides | recovered_recipe(planning), needs)


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``evaluation.json``. The dense model is measured once for all runs of a model."""
    from pipeline.measure.accuracy import lm_eval_version
    from pipeline.stages.shared.measuring import Measurements

    settings = config.of(EvaluateConfig)
    measurements = Measurements(config, inputs, evaluation_protocol(config), data_sources(config))
    shape, pruned = inputs.source.shape, given_state(config, inputs)
    variants = {
        "dense": inputs.live.cut(PruningState.dense(shape)),
        "pruned": inputs.live.cut(pruned),
    }
    if is_recovered(inputs):
        variants["recovered"] = recovered(inputs, variants["pruned"])
    inputs.listener.on_ahead(measurements.missing(variants.values()))
    records = {
        name: measurements.of(variant, f"the {name} model") for name, variant in variants.items()
    }
    evaluation = {name: record.to_json() for name, record in records.items()}
    for name in records.keys() - {"dense"}:
        evaluation[name]["ratio_percent"] = pruned.ratio_percent
    evaluation["settings"] = {
        "tasks": settings.tasks,
        "limit": settings.limit,
        "texts": settings.sources,
        "text_tokens": settings.text_tokens,
        "seqlen": settings.seqlen,
        "begins": inputs.source.tokens_before,
        "lm_eval": lm_eval_version(),
    }
    replace(out_dir / "evaluation.json", encode(evaluation))
    replace(
        out_dir / "pruning_config.json",
        encode(pruned.to_pruning_config(inputs.live.experts(shape))),
    )
    return {name: quality(record) for name, record in records.items()}


def quality(record: Record) -> Json:
    """How good a model is, in few numbers, each beside what it was measured on."""
    return {
        "accuracy": record.accuracy,
        "accuracy_of": tasks_protocol(record.tasks) if record.tasks else None,
        "ppl": record.ppl,
        "texts": {score.name: {"ppl": score.ppl, "of": score.protocol} for score in record.texts},
    }


def given_state(config: Config, inputs: Inputs) -> PruningState:
    """Where pruning ended, or what the given ``pruning_config.json`` says."""
    given = config.of(EvaluateConfig).pruning_config
    path = Path(given) if given else inputs.results["prune"] / "pruning_config.json"
    return state_in(path, inputs.source.shape, inputs.live.order)


def given_recipe(planning: Planning) -> Recipe:
    """What stands for a given ``pruning_config.json``, and the order of channels beside it."""
    path, order = planning.config.of(EvaluateConfig).pruning_config, given_order(planning.config)
    assert path
    recipe = {"pruning_config": planning.digest(Path(path))}
    return recipe | ({"channel_order": order.digest} if order else {})


def pruned_recipe(planning: Planning) -> Recipe | None:
    """What stands for the pruned model: that of the run, or a given one; None without either."""
    if planning.config.of(EvaluateConfig).pruning_config is not None:
        return given_recipe(planning)
    return {"prune": planning.key("prune")} if "prune" in planning.planned else None


def given_order(config: Config) -> ChannelOrder | None:
    """The order that the widths of a given ``pruning_config.json`` count in: the file beside it.

    None where there is none, or nothing is given. Raises ``DamagedError``.
    """
    path = config.of(EvaluateConfig).pruning_config
    return ChannelOrder.read(Path(path).parent / FILE) if path else None


STAGE = Stage(
    "evaluate", 60, recipe, run, needs=("prune", "dense"), section=EvaluateConfig, plan=plan,
    publishes=("evaluation.json", "pruning_config.json"), keeps=("evaluation.json",),
    facts=lambda result: {"evaluation": result},
)  # fmt: skip
