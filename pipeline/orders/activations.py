"""2SSP: how large a channel is on the calibration text (arXiv 2501.17771)."""

from typing import TYPE_CHECKING

from pipeline.criteria.base import STATISTICS, Material
from pipeline.orders.base import Order

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.blocks import Block


def scores(block: "Block", material: Material) -> "Tensor":
    """A channel's L2 norm over the tokens of a window, the mean over windows; of a head the sum.

    A channel is an input of the output layer.
    """
    norms = material.of(STATISTICS).of(block.name, "window_norm")
    return norms.view(block.groups, -1).sum(dim=1)


ACTIVATIONS = Order("activations", scores, frozenset({STATISTICS}))
