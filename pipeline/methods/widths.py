"""What methods have in common that take channels and heads by what they are ordered by."""

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from pipeline.criteria.base import Criterion
from pipeline.criteria.channels import of_channels
from pipeline.methods.base import Method
from pipeline.orders.base import Order
from pipeline.pruning.choice import ONE_SHOT
from pipeline.pruning.phases import Phase
from pipeline.pruning.units import ATTN_WIDTH, MLP_WIDTH
from pipeline.settings.core import PruneConfig

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class WidthsConfig(PruneConfig):
    """Channels and heads, in groups."""

    mlp_group_size: int = Field(ge=1)
    """MLP channels removed at a time."""
    attn_group_size: int = Field(ge=1)
    """Query channels removed at a time: whole key/value heads with their query heads."""


W = TypeVar("W", bound=WidthsConfig)


class WidthsMethod(Method[W]):
    """Channels and heads together, in one shot: those at the tails of their order."""

    is_uniform: bool = True
    """Whether all blocks lose the same share; else the lowest scores of all go."""
    reach_depends_on = "these group sizes"
    choice = ONE_SHOT

    @abstractmethod
    def order(self, settings: W) -> Order:
        """What channels and heads are put in order by, and scored by."""

    def phases(self, settings: W, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """One, down to the target."""
        sizes = {
            ATTN_WIDTH.name: settings.attn_group_size,
            MLP_WIDTH.name: settings.mlp_group_size,
        }
        units, target = (ATTN_WIDTH, MLP_WIDTH), settings.target_ratio
        return (Phase("widths", units, target, sizes, is_uniform=self.is_uniform),)

    def criterion(self, settings: W) -> Criterion:
        """What is ordered by."""
        return of_channels(self.order(settings).name)

    def problems(self, settings: W, source: "ModelSource") -> list[str]:
        """Group sizes fit the model, and the target can be reached."""
        mlp, attn = settings.mlp_group_size, settings.attn_group_size
        return group_problems(mlp, attn, source) or super().problems(settings, source)


def group_problems(
    mlp_group_size: int, attn_group_size: int | None, source: "ModelSource"
) -> list[str]:
    """What is wrong with group sizes for a model, one message each; None: heads stay.

    The size of what a family cannot lose is never asked for.
    """
    shape = source.shape
    mlps = [layer.mlp.width for layer in shape.layers if layer.mlp and not layer.mlp.mixture]
    mlp_width, attn_width = max(mlps, default=0), max(shape.widths("attn"))
    problems = []
    if mlp_group_size >= mlp_width > 0 and not shape.why_barred("mlp_width"):
        problems.append(
            f"prune.mlp_group_size: {mlp_group_size} is wrong; allowed is a number "
            f"from 1 to {mlp_width - 1}: this model's MLPs have {mlp_width} channels"
        )
    if attn_group_size is None or shape.why_barred(ATTN_WIDTH.name):
        return problems
    heads = {block.channels: None for layer in source.layers if (block := layer.attn)}
    multiple = math.lcm(*(each.group_width for each in heads))
    if heads and (attn_group_size % multiple or attn_group_size > attn_width):
        served = " or ".join(
            f"{each.queries_per_key} query heads of {each.head_dim} channels" for each in heads
        )
        problems.append(
            f"prune.attn_group_size: {attn_group_size} is wrong; allowed is a "
            f"multiple of {multiple} up to {attn_width}: a key/value head of this model "
            f"serves {served}"
        )
    return problems
