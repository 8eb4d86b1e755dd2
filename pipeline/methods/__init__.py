"""What is removed, in which order, by which criterion: one file for each method."""

from functools import cache
from typing import Any

from pipeline.methods.base import Method
from pipeline.registry import declared
from pipeline.settings.core import PruneConfig


@cache
def methods() -> dict[str, Method[Any]]:
    """Every method of this folder, by name."""
    return {method.name: method for method in declared(__name__, "METHOD", Method)}  # type: ignore[type-abstract]


def method_of(settings: PruneConfig) -> Method[Any]:
    """The method that a configuration chooses."""
    return methods()[settings.method]
