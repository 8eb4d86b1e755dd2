"""Stages, one file each; they know not where they run. Being in this folder is being registered."""

from functools import cache

from pipeline.registry import declared
from pipeline.stages.base import Stage


@cache
def stages() -> tuple[Stage, ...]:
    """Every stage, in the order in which they are planned and run."""
    known = tuple(sorted(declared(__name__, "STAGE", Stage), key=lambda stage: stage.order))
    for stage in known:
        before = [other.name for other in known if other.order < stage.order]
        for name in stage.needs:
            assert name in before, f"{stage.name} needs {name}; before it are {', '.join(before)}"
    return known


def is_main(name: str) -> bool:
    """Whether the stage of this name is the one that a run is for."""
    return any(stage.is_main for stage in stages() if stage.name == name)
