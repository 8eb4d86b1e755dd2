"""FLAP: how much a channel fluctuates, compared with others of its block (arXiv 2312.11983)."""

from typing import TYPE_CHECKING

from pipeline.criteria.base import STATISTICS, Material
from pipeline.orders.base import Order

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.blocks import Block


def scores(block: "Block", material: Material) -> "Tensor":
    """Var(X_j) sum_i W_ij^2 of each column j of the output layer, standardised over the block.

    That of an attention is squared before, as in the published code; of a head it is the mean.
    """
    weight = block.output.weight.float()
    variance = material.of(STATISTICS).of(block.name, "variance").to(weight.device)
    fluctuation = variance * weight.square().sum(dim=0)
    if block.kind == "attn":
        fluctuation = fluctuation.square()
    standardised = (fluctuation - fluctuation.mean()) / fluctuation.std()
    return standardised.view(block.groups, -1).mean(dim=1)


FLAP = Order("flap", scores, frozenset({STATISTICS}))
