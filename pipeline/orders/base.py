"""An order of channels and heads: what is cut is its tail."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.criteria.base import Material, Need

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.blocks import Block

Scores = Callable[["Block", Material], "Tensor"]
"""How important each group of a block's channels is in the dense model, ``[groups]``; a group is
the least that can go: one MLP channel, or a key/value head with its query heads."""


@dataclass(frozen=True)
class Order:
    """The highest scores come first."""

    name: str
    """What it is called in files."""
    scores: Scores
    needs: frozenset[Need[Any]] = frozenset()
    """What the scores ask for, besides the weights."""
    is_stored: bool = True
    """Whether it is stored with the run; else it is made of the weights whenever they are read."""
    of_experts: bool = False
    """Whether it puts the experts of mixtures in order, too; else these stay where they are."""
