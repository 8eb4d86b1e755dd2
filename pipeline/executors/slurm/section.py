"""``cluster.*`` for SLURM: what jobs ask for, for all stages and for single ones."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.settings.cluster import ClusterSection, Resources, StagesResources
from pipeline.settings.section import matching

OneLine = Annotated[
    str,
    Field(min_length=1),
    matching(r"[^\x00-\x1f\x7f]+", "text in one line, without control characters"),
]
"""Text that ends up in a line of a batch script."""
OptionName = Annotated[
    str,
    matching(
        "[A-Za-z][A-Za-z0-9_-]*",
        "the long name of an option: letters, digits, '_' and '-', a letter first",
    ),
]
"""The long name of an option of sbatch."""


class StageResources(Resources):
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

    @property
    def devices(self) -> int:
        """GPUs of all nodes; one where it has none."""
        return max(1, (self.gpus or 0) * (self.nodes or 1))


class SlurmStages(StagesResources):
    """The same keys for single stages: they win over the cluster's."""

    resources = StageResources


class SlurmSection(StageResources, ClusterSection):
    """As jobs of SLURM's."""

    name: Literal["slurm"]
    """Every stage is a job."""
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
    stages: SlurmStages = Field(default_factory=lambda: SlurmStages.model_validate({}))
    """Other resources for single stages: cluster.stages.prune.timeout_min=600."""

    @property
    def is_offline(self) -> bool:
        """Whether compute nodes have no internet."""
        return self.offline

    @property
    def most_requeues(self) -> int:
        """How often a job goes on."""
        return self.max_requeues

    def shown(self) -> dict[str, Any]:
        """Without the shell lines of ``setup``, which may export a key."""
        shown = self.model_dump(mode="json")
        for resources in (shown, *shown["stages"].values()):
            del resources["setup"]
        return shown

    def of_stage(self, stage: str) -> StageResources:
        """What a job asks for that has the resources of ``stage``."""
        of_one: StageResources = getattr(self.stages, stage)
        own: dict[str, Any] = of_one.model_dump(exclude_unset=True, exclude_none=True)
        common = {name: getattr(self, name) for name in StageResources.model_fields}
        parameters = {**self.parameters, **own.pop("parameters", {})}
        return StageResources.model_validate({**common, **own, "parameters": parameters})
