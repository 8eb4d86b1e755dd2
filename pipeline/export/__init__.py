"""Models that open elsewhere: one file for each target. Being in this folder is being one."""

from functools import cache

from pipeline.export.base import Target
from pipeline.registry import declared


@cache
def targets() -> dict[str, Target]:
    """Every target, by name."""
    return {target.name: target for target in declared(__name__, "TARGET", Target)}
