"""Norms of weights: of the output layer's columns, or of all weights of a group."""

from typing import TYPE_CHECKING

from pipeline.criteria.base import Material
from pipeline.orders.base import Order

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.blocks import Block


def of_columns(power: int) -> Order:
    """(sum over rows of abs(W)^p)^(1/p) of each column of the output layer; of a head their sum."""

    def scores(block: "Block", _: Material) -> "Tensor":
        weight = block.output.weight.float()
        norms = weight.abs().pow(power).sum(dim=0).pow(1 / power)
        return norms.view(block.groups, -1).sum(dim=1)

    return Order(f"columns_l{power}", scores)


def of_groups(power: int) -> Order:
    """The sum of abs(w)^p over all weights of a group, as LLM-Pruner takes it (no root)."""

    def scores(block: "Block", _: Material) -> "Tensor":
        return block.group_sums(lambda weight: weight.float().abs().pow(power))

    return Order(f"groups_l{power}", scores)
