"""Every key of the configuration decides a result and is in a stage's key, or it never does."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from support_inputs import another_schema, configured, problems_of, save_tokenizer, write_jsonl

from pipeline.config.schema import _fields_of_all, decisive, known_keys, validate
from pipeline.criteria.base import ScoredBy
from pipeline.errors import ConfigError
from pipeline.executors import executors
from pipeline.files import Json, sha256_of_file
from pipeline.methods import methods
from pipeline.methods.base import Method
from pipeline.models.source import ModelSource
from pipeline.plan.plan import Plan, plan
from pipeline.pruning.phases import STANDARD, Phase
from pipeline.settings.core import Config, PruneConfig
from pipeline.settings.flat import flat
from pipeline.stages.base import Planning
from pipeline.store.run_folder import RunFolder

EVERYTHING = (
    "model=hf", "model.path=model", "model.device=cpu",
    "calibration=text", "calibration.path=text.txt",
    "probe.every=1", "probe.text=text.txt", "probe.tasks=[own,piqa]", "probe.latency=true",
    "+evaluate.texts.wikitext2=wikitext2", "evaluate.tasks=[own,piqa]",
    "evaluate.data_dir=data", "+evaluate.task_files.own=own.jsonl",
    "sweep.name=sweep", "export=[hf,gguf,vllm]",
    "recover.steps=[compensate,distill,lora]", "+recover.calibration.sources.own.path=text.txt",
    "+recover.calibration.held_out.other.path=other.txt", "recover.instructions.path=own.jsonl",
)  # fmt: skip
"""A configuration in which every key has something to say."""

OTHER: dict[str, Json] = {
    "model.path": "other_model",
    "model.gguf_file": "model.gguf",
    "model.device": "cuda",
    "model.bos": "always",
    "prune.distribution": [1.0, 1.0, 1.0],
    "prune.order": ["heads", "mlp_channels", "blocks"],
    "prune.method": "first",
    "prune.bias": False,
    "prune.block_share": 0.25,
    "prune.population": 8,
    "prune.survivors": [4, 2],
    "prune.start": "pruning_config.json",
    "calibration.path": "other.txt",
    "calibration.sources": {"own": {"path": "other.txt"}},
    "evaluate.data_dir": "other_data",
    "evaluate.pruning_config": "pruning_config.json",
    "evaluate.task_files": {"own": "other.jsonl"},
    "evaluate.tasks": ["own"],
    "evaluate.text": "other.txt",
    "evaluate.texts": {"wikitext2": "other.txt"},
    "probe.tasks": ["own"],
    "run.pictures": ["svg"],
    "study.space": {"prune.target_ratio": {"low": 1, "high": 2}},
    "study.reference": [1.0],
    "probe.text": "other.txt",
    "probe.workloads": {"default": {"batch": 2}},
    "export.hf.dtype": "float16",
    "export.gguf.dtype": "q8_0",
    "export.vllm.dtype": "float16",
    "cluster.name": "local",
    "recover.steps": ["distill", "lora"],
    "recover.calibration.sources": {"own": {"path": "other.txt"}},
    "recover.calibration.held_out": {"other": {"path": "text.txt"}},
    "recover.instructions.path": "other.jsonl",
    "recover.lora.data": "text",
    "recover.distill.betas": [0.9, 0.95],
    "recover.lora.betas": [0.9, 0.95],
}
"""Another value, where not any will do."""
SMALL = {
    "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 64, "intermediate_size": 176,
    "num_attention_heads": 4, "vocab_size": 100,
}  # fmt: skip
"""A configuration: some methods look at how large a model is."""
ANY = (True, False, 1, 2, 0.5, "other", ["other"], {"other": 1})


class First(Method[PruneConfig]):
    """The first block goes."""

    name = "first"
    section = PruneConfig

    def phases(self, settings: PruneConfig, source: ModelSource) -> tuple[Phase, ...]:
        return (Phase("blocks", STANDARD["blocks"], settings.target_ratio),)

    def criterion(self, settings: PruneConfig) -> ScoredBy:
        return ScoredBy("first", lambda _material, _state, candidates: range(len(candidates)))


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two of everything that is read, and two methods."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("model", "weights"), ("other_model", "other weights")):
        save_tokenizer(Path(name))
        Path(name, "config.json").write_text(json.dumps(SMALL))
        Path(name, "model.safetensors").write_text(text)
    Path("model", "model.gguf").write_text("other weights")
    for name, text in (("text.txt", "a text"), ("other.txt", "another")):
        Path(name).write_text(text)
    for number, name in enumerate(("data", "other_data")):
        for path in (Path(name, "wikitext2/wiki.test.raw"), Path(name, "piqa/validation.jsonl")):
            path.parent.mkdir(parents=True)
            path.write_text(str(number))
    for name in ("own.jsonl", "other.jsonl"):
        write_jsonl(Path(name), [{"context": name, "choices": ["a", "b"], "label": 0}])
    Path("pruning_config.json").write_text("{}")
    monkeypatch.setitem(methods(), "first", First())
    with another_schema():
        yield
        monkeypatch.undo()


def planned(config: Config) -> Plan:
    """The plan of a configuration; a revision stands for itself, and a GGUF file has no content."""
    model, digest = config.model, cache(sha256_of_file)
    commit = f"hub@{model.revision}" if model.revision else None
    source = ModelSource(Path(model.path), model.gguf_file, commit, model.bos)
    source.__dict__["config"] = ModelSource(Path(model.path), None, commit).config
    weights = commit or str([digest(path) for path in source.weight_files])
    return plan(Planning(config, source, weights, digest))


def keys(config: Config) -> dict[str, str]:
    """The stages with their keys."""
    return {name: stage.key for name, stage in planned(config).by_name.items()}


def with_value(config: Config, key: str, value: Json) -> Config:
    settings: Json = config.model_dump(mode="json")
    *sections, name = key.split(".")
    section = settings
    for each in sections:
        section = section[each]
    section[name] = value
    return validate(settings, {key})


def changed(base: Config, key: str) -> Config | None:
    """The configuration with another value of a key; None where it has no such key."""
    before = flat(base.model_dump(mode="json"))
    choices = _choices(_fields_of_all()[key].annotation)
    for value in (OTHER[key],) if key in OTHER else (*choices, *ANY):
        try:
            config = with_value(base, key, value)
        except (ConfigError, KeyError):
            continue
        if flat(config.model_dump(mode="json")) != before:
            return config
    return None


def _choices(annotation: Any) -> tuple[Json, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for inner in get_args(annotation) for choice in _choices(inner))


def bases() -> list[Config]:
    """One configuration for each executor and each method with keys of its own, and mixed text.

    The one that runs here first.
    """
    here = configured(*EVERYTHING, "prune.distribution=[4,3,2,1]")  # experts have a share, too
    others = [each.name for each in executors() if each.name != here.cluster.name]
    known = set(type(here.prune).model_fields)
    of_methods = []
    for name, method in methods().items():
        if method.section.model_fields.keys() - known:
            of_methods.append(configured(*EVERYTHING, f"prune={name}"))
            known |= method.section.model_fields.keys()
    mixed = configured(*EVERYTHING, "calibration=mixed", "calibration.path=null")
    of_clusters = [with_value(here, "cluster", {"name": name}) for name in others]
    return [here, *of_clusters, *of_methods, mixed]


def test_a_key_is_in_a_stages_key_or_declared_as_execution_never_both_and_never_neither() -> None:
    planned_bases = [(base, keys(base)) for base in bases()]
    wrong = []
    for key in known_keys():
        tried = ((base, before, changed(base, key)) for base, before in planned_bases)
        base, before, other = next((each for each in tried if each[2]), (None, None, None))
        assert base is not None, f"no other value is known for {key}: add it to OTHER"
        assert other is not None
        decides, counts = keys(other) != before, base.decides(key)
        if decides and not counts:
            wrong.append(f"{key} is declared as Execution, and changes a stage's key")
        if counts and not decides:
            wrong.append(f"{key} is in no recipe, and not declared as Execution")
    assert not wrong, "\n".join(wrong)


def test_what_decides_tells_runs_apart_whatever_they_were_made_with() -> None:
    settings = {"scoring.precision": "mixed", "scoring.memory_fraction": 0.5, "plan": True}
    settings |= {"cluster.of_an_earlier_version": 1, "prune.of_an_earlier_version": 1}
    for method in ({}, {"prune.method": "multipruner"}, {"prune.method": ["gone"]}):
        left = decisive(settings | method)
        assert set(left) == {"scoring.precision", "prune.of_an_earlier_version", *method}


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("scoring.precision", "scoring.precision is 'model' there and 'mixed' here"),
        ("scoring.memory_fraction", None),
        ("prune.audit_every", None),
    ],
)
def test_a_folder_tells_its_owner_by_what_decides(key: str, told: str | None) -> None:
    first = configured(*EVERYTHING, "run.dir=run")
    other = changed(first, key)
    assert other is not None
    if key == "scoring.precision":
        other = with_value(first, key, "mixed")

    def claim(config: Config) -> None:
        stages = planned(config)
        RunFolder(Path("run")).claim(config, stages.key, stages.stages, {})

    claim(first)
    if told is None:
        claim(other)
    else:
        (problem,) = problems_of(lambda: claim(other))
        assert f"run.dir: run belongs to another configuration ({told})" in problem
