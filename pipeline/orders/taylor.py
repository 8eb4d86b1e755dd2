"""LLM-Pruner's first-order Taylor importance (arXiv 2305.11627)."""

from pipeline.criteria.base import GRADIENTS
from pipeline.orders.base import Order

TAYLOR = Order(
    "taylor",
    lambda block, material: material.of(GRADIENTS).of(block.name, "groups"),
    frozenset({GRADIENTS}),
)
"""The sum of abs(w g) over all weights of a group, g the gradient of the loss."""
