"""Stages, one file each; they know not where they run. Being in this folder is being registered."""

from functools import cache

from pipeline.registry import declared
from pipeline.stages.base import Stage


@cache
def stages() -> tuple[Stage, ...]:
    """Every stage, in the order in which they are planned and run."""
    return tuple(sorted(declared(__name__, "STAGE", Stage), key=lambda stage: stage.order))


def is_main(name: str) -> bool:
    """Whether the stage of this name is the one that a run is for."""
    return any(stage.is_main for stage in stages() if stage.name == name)
