"""The experts of mixtures, beside the channels and heads: the most important first."""

from typing import TYPE_CHECKING, Literal

from pipeline.criteria.base import STATISTICS, Material, Need
from pipeline.orders.base import Order

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

    from pipeline.models.blocks import Block

By = Literal["router", "l1"]
"""What experts are ordered by: the weight that the router gives to each on calibration text, or the
L1 norm of each one's weights."""
NEEDS: "dict[By, frozenset[Need[Any]]]" = {"router": frozenset({STATISTICS}), "l1": frozenset()}


def with_experts(channels: Order | None, by: By) -> Order:
    """An order of channels and heads, or None where they stay, and of experts ``by`` another."""

    def scores(block: "Block", material: Material) -> "Tensor":
        if block.is_mixture:
            if by == "l1":
                return block.expert_norms()
            return material.of(STATISTICS).of(block.name, "router_mass")
        return channels.scores(block, material) if channels else in_place(block)

    name = f"{channels.name if channels else 'none'}+experts by {by}"
    needs = NEEDS[by] | (channels.needs if channels else frozenset())
    return Order(name, scores, needs, of_experts=True)


def in_place(block: "Block") -> "Tensor":
    """Scores that leave every group where it is."""
    import torch

    return -torch.arange(block.groups, dtype=torch.float32)
