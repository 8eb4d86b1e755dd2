"""Getting accuracy back: one file for each technique. Being in this folder is being one."""

from functools import cache

from pipeline.recovery.base import Technique
from pipeline.registry import declared


@cache
def techniques() -> dict[str, Technique]:
    """Every technique, by name."""
    return {technique.name: technique for technique in declared(__name__, "TECHNIQUE", Technique)}
