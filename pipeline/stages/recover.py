"""Stages recover_TECHNIQUE: the pruned model gets accuracy back, by one technique after the other.

There is one for each of ``recover.steps``, which starts from what the one before left. Its folder
has the values that differ from the cut model's weights.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pipeline.data.rows import json_lines
from pipeline.data.sources import TextSource, content, read_as, sources_problems
from pipeline.data.windows import not_in_vocabulary
from pipeline.errors import ConfigError
from pipeline.files import Json, digest_of, encode, read_object, replace, sha256_of_file
from pipeline.given import file_problem
from pipeline.models.digests import Digest, bos_recipe, tokenizer_digest
from pipeline.recovery import techniques
from pipeline.recovery.base import Recovering, Technique, TechniqueConfig
from pipeline.recovery.text.sections import InstructionsConfig, RecoveryTextConfig
from pipeline.settings.core import Config
from pipeline.settings.section import Section
from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe, Stage
from pipeline.stages.calibrate import CalibrationConfig
from pipeline.stages.evaluate import (
    data_sources,
    evaluation_protocol,
    given_state,
    pruned_recipe,
    prunes,
)
from pipeline.stages.shared.phases import needs_windows
from pipeline.stages.shared.recovered import FACTS, VALUES, recovered

if TYPE_CHECKING:
    from torch.nn import Parameter

    from pipeline.models.source import ModelSource
    from pipeline.models.variants import Variant
    from pipeline.recovery.text.windows import Text

LEARNING = "learning.jsonl"
"""A technique that learns leaves its curve there: one object for each point."""
PREFIX = "recover_"


class RecoverConfig(Section):
    """Getting accuracy back after pruning."""

    key: ClassVar[str] = "recover"

    steps: list[str] = Field(default_factory=list)
    """Techniques, in the order in which they are done; [] does nothing."""
    calibration: RecoveryTextConfig = Field(default_factory=RecoveryTextConfig)
    """Text to learn from, and text that tells whether it helped."""
    instructions: InstructionsConfig = Field(default_factory=InstructionsConfig)
    """Instructions with answers, for techniques that learn from them."""
    seed: int = 0
    """Of the order of rows and of what is drawn while learning."""

    def of(self, technique: Technique) -> TechniqueConfig:
        """The section of a technique."""
        own = getattr(self, technique.name)
        assert isinstance(own, TechniqueConfig)
        return own

    @property
    def wanted(self) -> list[Technique]:
        """The techniques in their order."""
        return [techniques()[name] for name in self.steps]

    def readers(self, *, of_instructions: bool) -> list[TechniqueConfig]:
        """Settings of the techniques that learn from instructions, or of those that read text."""
        own = [(each, self.of(each)) for each in self.wanted]
        return [own for each, own in own if each.learns_instructions(own) == of_instructions]

    @classmethod
    def problems(cls, given: Mapping[str, Json]) -> Iterator[str]:
        """Techniques that are known, each once; sources that are files or have a hub."""
        steps, known = given.get("steps") or [], ", ".join(techniques())
        for name in dict.fromkeys(steps) if isinstance(steps, list) else ():
            if name not in techniques():
                yield f"recover.steps: {name} is no technique; known are {known}"
            elif steps.count(name) > 1:
                yield f"recover.steps: {name} is there twice; allowed is each technique once"
        text = given.get("calibration") or {}
        for part in ("sources", "held_out"):
            given_sources = text.get(part) if isinstance(text, Mapping) else None
            yield from sources_problems(f"recover.calibration.{part}", given_sources)

    @classmethod
    def idle(cls, given: Mapping[str, Json]) -> Mapping[str, str]:
        """The techniques that are not done; none where a name may be a typo for one."""
        steps = given.get("steps") or []
        if not isinstance(steps, list) or not {*map(str, steps)} <= {*techniques()}:
            return {}
        return {
            name: f"means nothing where recover.steps does not have {name}; type recover={name}, "
            "or name it there beside others"
            for name in techniques()
            if name not in steps
        }


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """One for each technique, each with the one before in its recipe."""
    if pruned_recipe(planning) is None:
        return
    done: list[PlannedStage] = []
    for technique in planning.config.of(RecoverConfig).wanted:
        needs = (*planning.those(["prune"]), *done)
        recipe = recipe_of(planning, technique, done[-1].key if done else None)
        done.append(PlannedStage(stage, f"{PREFIX}{technique.name}", recipe, needs))
        yield done[-1]


def recipe_of(planning: Planning, technique: Technique, before: str | None) -> Recipe:
    """What decides the weights: those before, the technique, and what is learnt from."""
    settings = planning.config.of(RecoverConfig)
    own = settings.of(technique)
    return {
        "technique": technique.name,
        "version": technique.version,
        "settings": {
            key: value for key, value in own.model_dump(mode="json").items() if own.decides(key)
        },
        "seed": settings.seed,
        "text": _text_recipe(planning, technique, own),
        "tokenizer": tokenizer_digest(planning.source, planning.digest),
        **bos_recipe(planning.source),
        "model": planning.model,
        **({"before": before} if before else pruned_recipe(planning) or {}),
    }


def _text_recipe(planning: Planning, technique: Technique, own: TechniqueConfig) -> Recipe:
    settings, digest = planning.config.of(RecoverConfig), planning.digest
    if technique.learns_instructions(own):
        rows = settings.instructions
        return read_as(rows, digest)
    text = settings.calibration
    shared = [
        source for source in text.learnt_from.values() if _drawn_as(planning.config, source, digest)
    ]
    return {
        "sources": {name: read_as(each, digest) for name, each in text.learnt_from.items()},
        "held_out": {name: read_as(each, digest) for name, each in text.kept_apart.items()},
        "held_out_tokens": text.held_out_tokens,
        "seqlen": text.seqlen,
        **({"apart_from": planning.key("calibrate")} if shared else {}),
    }


def _drawn_as(config: Config, source: TextSource, digest: Digest) -> str | None:
    """What decisions call the same file or dataset; None where they were made on other text."""
    if not prunes(config) or not needs_windows(config):
        return None
    drawn = config.of(CalibrationConfig)
    one = {drawn.dataset: (drawn.dataset, drawn.path)}
    several = {name: (each.dataset, each.path) for name, each in drawn.sources.items()}
    for name, (dataset, path) in (several or one).items():
        # the hub's C4 and WikiText-2 give other parts of them to decisions than to recovery
        same_kind = dataset == source.dataset and (source.path or dataset == "alpaca")
        if same_kind and content(path, digest) == content(source.path, digest):
            return name
    return None


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Change the weights that are left, and write those that differ from the cut model's."""
    from safetensors.torch import save_file

    technique = techniques()[inputs.stage.recipe["technique"]]
    settings = config.of(RecoverConfig)
    own = settings.of(technique)
    inputs.listener.on_doing("reading text")
    text = _read(config, inputs, technique, own)
    if problems := _unknown(text, inputs.source):
        raise ConfigError(problems)
    cut = inputs.live.cut(given_state(config, inputs))
    variant = recovered(inputs, cut)

    def weights_at(variant: "Variant") -> "dict[str, Parameter]":
        return inputs.live.at(variant).weights()

    # on the CPU: a technique has the dense model on the device, too
    before = {name: each.to("cpu", copy=True) for name, each in weights_at(cut).items()}
    recovering = Recovering(
        live=inputs.live,
        variant=variant,
        source=inputs.source,
        settings=own,
        train=text.train,
        held_out=text.held_out,
        seed=settings.seed,
        folder=out_dir,
        note=inputs.listener.on_note,
        warn=inputs.listener.on_warning,
        progress=lambda progress: inputs.listener.on_learning(technique.name, progress),
        leader=inputs.leader,
        watching=inputs.listener,
    )
    tokens = int(text.train.learnt.sum())
    inputs.listener.on_note(f"{technique.name}: {text.in_words()}")
    try:
        facts = technique.run(recovering)
        after = ((name, each.detach().cpu()) for name, each in weights_at(variant).items())
        changed = {name: each for name, each in after if not each.equal(before[name])}
        writing = out_dir / f".{VALUES}"
        save_file(changed, writing, metadata={"format": "pt"})
        writing.replace(out_dir / VALUES)
    finally:
        inputs.live.forget()  # the model in memory is neither the one before nor another's
        inputs.live.drop_twin()
    result = {
        "technique": technique.name,
        "becomes": technique.becomes,
        "weights": sha256_of_file(out_dir / VALUES),
        "changed": len(changed),
        "tokens": tokens,
        **facts,
    }
    curve = (
        [point for _, point in json_lines(out_dir / LEARNING)]
        if (out_dir / LEARNING).exists()
        else []
    )
    replace(out_dir / FACTS, encode({**result, "learning": curve, "rows": text.rows}))
    return result


def replay(_config: Config, inputs: Inputs) -> None:
    """Tell of the learning curve."""
    facts = read_object(inputs.results[inputs.stage.name] / FACTS)
    if facts and facts["learning"]:
        inputs.listener.on_learned(facts["technique"], facts["learning"])


def _read(config: Config, inputs: Inputs, technique: Technique, own: TechniqueConfig) -> "Text":
    """What the technique learns from; never rows that decisions were made on."""
    from pipeline.recovery.text.instructions import read_instructions
    from pipeline.recovery.text.windows import read_text
    from pipeline.stages.shared.calibration import rows_read, texts_read

    settings, tokenizer = config.of(RecoverConfig), inputs.source.tokenizer
    drawn = config.of(CalibrationConfig)
    is_drawn = prunes(config) and needs_windows(config)
    if technique.learns_instructions(own):
        texts = texts_read(drawn, inputs.source) if is_drawn else ()
        return read_instructions(settings.instructions, tokenizer, own.tokens, settings.seed, texts)

    sources = settings.calibration.learnt_from
    names = {name: _drawn_as(config, source, inputs.digest) for name, source in sources.items()}
    read = rows_read(drawn, inputs.source) if any(names.values()) else {}
    taken = {name: read[there] for name, there in names.items() if there}
    begin = inputs.source.beginning.window
    return read_text(settings.calibration, tokenizer, own.tokens, settings.seed, taken, begin=begin)


def missing_files(config: Config) -> list[str]:
    """Files that are learnt from and cannot be read, in words that name the key."""
    return [
        f"{section}.path: {path} {problem}"
        for section, path, _ in _texts(config)
        if path is not None and (problem := file_problem(path))
    ]


def problems_of(config: Config, source: "ModelSource") -> list[str]:
    """What is wrong with what recovery reads and is done to, in words that name the key."""
    settings = config.of(RecoverConfig)
    if not settings.steps:
        return []
    problems = []
    if not source.tokenizer_files:
        problems.append(
            f"model.path: {source.folder} has no tokenizer, and recovery reads text; add its files "
            "there, or choose recover=none"
        )
    for technique in settings.wanted:
        refused = technique.refused(source, settings.of(technique), config.model.offload)
        problems += [refused] if refused else []
    problems += source.too_long(_lengths(settings))
    problems += [each for text in _texts(config) for each in _file_problems(config, *text)]
    return problems or _unfit(settings, source)


def _lengths(settings: RecoverConfig) -> dict[str, int]:
    """Tokens of what is learnt from at a time, by the key that says so."""
    lengths = {}
    if settings.readers(of_instructions=False):
        lengths["recover.calibration.seqlen"] = settings.calibration.seqlen
    if settings.readers(of_instructions=True):
        lengths["recover.instructions.seqlen"] = settings.instructions.seqlen
    return lengths


def _unfit(settings: RecoverConfig, source: "ModelSource") -> list[str]:
    """What is wrong with text of local files alone: too little, or of another vocabulary.

    That of the hub is looked at when it is there.
    """
    from pipeline.recovery.text.windows import read_text

    readers, text = settings.readers(of_instructions=False), settings.calibration
    several = (*text.learnt_from.values(), *text.kept_apart.values())
    if not readers or not all(each.path for each in several):
        return []
    tokens = max(own.tokens for own in readers)
    begin = source.beginning.window
    read = read_text(text, source.tokenizer, tokens, settings.seed, {}, begin=begin)
    return _unknown(read, source)


def _unknown(text: "Text", source: "ModelSource") -> list[str]:
    """Tokens that the model does not know."""
    highest = max(int(read.ids.max()) for read in (text.train, *text.held_out.values()))
    problem = not_in_vocabulary(highest, source.vocabulary_size)
    return [f"model.path: {problem}"] if problem else []


def from_hub(config: Config) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is learnt from and has to come from the hub: its key, and how it is brought."""
    for section, path, read in _texts(config):
        if path is None:
            yield f"{section}.path", read


def _texts(config: Config) -> Iterator[tuple[str, str | None, Callable[[], object]]]:
    """What is learnt from: the section that names it, its file, and how it is read."""
    if not config.of(RecoverConfig).steps:
        return
    from pipeline.recovery.text.instructions import instructions
    from pipeline.recovery.text.windows import TEXT, read_source

    settings = config.of(RecoverConfig)
    if settings.readers(of_instructions=True):
        rows = settings.instructions
        yield "recover.instructions", rows.path, lambda: list(instructions(rows))
    if settings.readers(of_instructions=False):
        text = settings.calibration
        for part, sources in (("sources", text.learnt_from), ("held_out", text.kept_apart)):
            for name, source in sources.items():
                section = f"{TEXT}.{part}.{name}"
                yield section, source.path, partial(read_source, section, source)


def _file_problems(
    config: Config, section: str, path: str | None, read: Callable[[], object]
) -> Iterator[str]:
    """It can be read, and is nothing that models are evaluated on."""
    if path is None or file_problem(path):
        return
    try:
        read()
    except ConfigError as error:
        yield from error.problems
        return
    folder = data_sources(config).data_dir
    for text in evaluation_protocol(config).texts:
        other = text.file(folder)
        if other and other.is_file() and digest_of(other) == digest_of(Path(path)):
            yield (
                f"{section}.path: {path} is also what is evaluated on as "
                f"evaluate.texts.{text.name}; give another text"
            )


SECTION = RecoverConfig.with_sections({name: t.section for name, t in techniques().items()})
"""With the section of every technique."""
STAGE = Stage(
    "recover", 55, lambda _: None, run, needs=("prune",), section=SECTION, plan=plan,
    keeps=(FACTS,), recovers=True, replay=replay,
    facts=lambda result: {"recovery": {result["technique"]: result}},
)  # fmt: skip
