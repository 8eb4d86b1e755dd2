"""What every executor's section of the configuration has; the executors add their own keys."""

from typing import Any, ClassVar

from pipeline.settings.section import Section


class Resources(Section):
    """What a job asks for. An executor adds its own keys, or has none."""

    @property
    def devices(self) -> int:
        """What its hours are counted in: GPUs, or one where it has none."""
        return 1


class ClusterSection(Section):
    """Where stages run. Each executor has the keys that it understands."""

    key: ClassVar[str] = "cluster"

    name: str
    """The executor."""

    @property
    def is_offline(self) -> bool:
        """Whether the machines where stages run have no internet."""
        return False

    @property
    def most_requeues(self) -> int:
        """How often a job may go on after it was asked to end."""
        return 0

    def shown(self) -> dict[str, Any]:
        """Its keys as they may be shown outside this machine: without what may hold a secret."""
        return self.model_dump(mode="json")

    def of_stage(self, stage: str) -> Resources:  # noqa: ARG002
        """What the job of a stage asks for."""
        return Resources()


class StagesResources(Section):
    """The same keys for single stages: they win over the cluster's.

    A section has it as ``stages``; the schema adds a key for each stage.
    """

    resources: ClassVar[type[Resources]]
    """What each stage has."""
