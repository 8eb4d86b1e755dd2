"""2SSP: MLP channels by their activations, then attentions by perplexity (arXiv 2501.17771).

Its second stage measures perplexity on one window; that is ``calibration.width_windows=1``, as
``+protocol=two_ssp`` sets it. Without it every method has the same text.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.criteria.base import Criterion
from pipeline.criteria.by_unit import ByUnit
from pipeline.criteria.channels import of_channels
from pipeline.criteria.perplexity import Perplexity
from pipeline.methods.base import Method
from pipeline.methods.widths import group_problems
from pipeline.orders.activations import ACTIVATIONS
from pipeline.orders.base import Order
from pipeline.pruning.phases import Phase
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.units import ATTN, MLP_CHANNELS, MLP_WIDTH
from pipeline.settings.core import PruneConfig

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class TwoSspConfig(PruneConfig):
    """MLP channels by activations, then attentions by perplexity (arXiv 2501.17771)."""

    mlp_group_size: int = Field(ge=1)
    """MLP channels removed at a time."""
    alpha: float = Field(1.5, gt=0, allow_inf_nan=False)
    """The higher, the more of the target falls to attentions."""


def attentions(shape: ModelShape, target_ratio: float, alpha: float) -> int:
    """How many attentions go: round(L s^((P_mlp / P_attn) / alpha)).

    L is the number of layers, s the share of all blocks' parameters that the target is, P_mlp and
    P_attn the parameters of all MLPs and all attentions.
    """
    mlp, attn = shape.params("mlp"), shape.params("attn")
    share = min(1.0, target_ratio / 100 * shape.total_params / (mlp + attn))
    return round(len(shape.layers) * share ** (mlp / attn / alpha)) if attn else 0


class TwoSsp(Method[TwoSspConfig]):
    """First the same share of every MLP, then attentions one after the other."""

    name = "two_ssp"
    section = TwoSspConfig
    reach_depends_on = "this group size"

    def phases(self, settings: TwoSspConfig, source: "ModelSource") -> tuple[Phase, ...]:
        """MLPs down to what attentions leave of the target, then attentions."""
        shape, target = source.shape, settings.target_ratio
        count = attentions(shape, target, settings.alpha)
        one = shape.params("attn") / len(shape.layers) / shape.total_params * 100
        first = max(0.0, target - count * one)
        size = settings.mlp_group_size
        return (
            Phase("mlp_channels", MLP_CHANNELS, first, size, is_uniform=True),
            Phase("attentions", (ATTN,), target, windows="width"),
        )

    def order(self, settings: TwoSspConfig) -> Order:  # noqa: ARG002
        """How large channels are."""
        return ACTIVATIONS

    def criterion(self, settings: TwoSspConfig) -> Criterion:  # noqa: ARG002
        """What channels are ordered by; perplexity."""
        channels = of_channels(ACTIVATIONS.name)
        return ByUnit("two_ssp", {MLP_WIDTH.name: channels, ATTN.name: Perplexity()})

    def problems(self, settings: TwoSspConfig, source: "ModelSource") -> list[str]:
        """The group size fits the model, and the target can be reached."""
        wrong = group_problems(settings.mlp_group_size, None, source)
        return wrong or super().problems(settings, source)


METHOD = TwoSsp()
