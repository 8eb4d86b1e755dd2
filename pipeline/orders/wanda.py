"""Wanda: weights times the norm of what they are multiplied with (arXiv 2306.11695)."""

from typing import TYPE_CHECKING

from pipeline.criteria.base import STATISTICS, Material
from pipeline.orders.base import Order

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.blocks import Block


def scores(block: "Block", material: Material) -> "Tensor":
    """Mean over i of abs(W_ij) ||X_j||_2, of a column j of the output layer; of a head the sum."""
    weight = block.output.weight.float().abs()
    norm = material.of(STATISTICS).of(block.name, "norm").to(weight.device)
    return (weight.mean(dim=0) * norm).view(block.groups, -1).sum(dim=1)


WANDA = Order("wanda", scores, frozenset({STATISTICS}))
