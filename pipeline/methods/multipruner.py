"""MultiPruner: blocks, MLP channels and heads, each greedily by perplexity (arXiv 2501.09949)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from pipeline.criteria.base import Criterion
from pipeline.criteria.perplexity import Perplexity
from pipeline.methods.base import Method
from pipeline.methods.widths import WidthsConfig, group_problems
from pipeline.orders.base import Order
from pipeline.orders.flap import FLAP
from pipeline.orders.l1 import L1
from pipeline.orders.taylor import TAYLOR
from pipeline.orders.wanda import WANDA
from pipeline.pruning.phases import STANDARD, Phase
from pipeline.settings.section import Execution

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

ORDERS = {False: None, True: L1, "wanda": WANDA, "flap": FLAP, "taylor": TAYLOR}
"""By ``prune.weight_reorder``."""
Dimension = Literal["blocks", "mlp_channels", "heads"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


def _is_distribution(value: list[float]) -> list[float]:
    if len(value) != len(DIMENSIONS) or min(value) < 0 or not 0 < sum(value) < math.inf:
        raise ValueError(
            "allowed are three non-negative numbers with a positive sum, "
            "blocks : MLP channels : heads, e.g. [44,52,4]"
        )
    return value


def _is_order(value: list[Dimension]) -> list[Dimension]:
    if sorted(value) != sorted(DIMENSIONS):
        raise ValueError(f"allowed is each of {', '.join(DIMENSIONS)} once")
    return value


class MultiPrunerConfig(WidthsConfig):
    """Blocks, MLP channels and heads, one dimension after the other (arXiv 2501.09949)."""

    distribution: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]], AfterValidator(_is_distribution)
    ]
    """Shares of the target ratio: blocks, MLP channels, heads."""
    order: Annotated[list[Dimension], AfterValidator(_is_order)] = Field(list(DIMENSIONS))
    """Which dimension is pruned first, second and last; ``distribution`` keeps its own order."""
    weight_reorder: bool | Literal["wanda", "flap", "taylor"] = True
    """Put the most important channels and heads first, so that the tail is the least important.
    true is by the L1 norms of their rows; wanda by weights times activations, flap by weighted
    fluctuation, taylor by weights times gradients, on the calibration text."""
    search: Literal["exhaustive", "race"] = "exhaustive"
    """How the candidate of a step is found. exhaustive scores every one on all tokens; race drops
    candidates as soon as their windows show that another one is better."""
    audit_every: Execution[int] = Field(10, ge=0)
    """Of a race, every so many steps are also scored exhaustively, to report how often it decided
    otherwise; 0 never. Never changes what is decided."""


def thresholds(
    target_ratio: float,
    distribution: Sequence[float],
    order: Sequence[Dimension] = DIMENSIONS,
) -> dict[Dimension, float]:
    """The removed percentage at which each dimension ends: its cumulative share of the target.

    ``distribution`` has the shares of ``DIMENSIONS``; the dimensions come one after the other in
    ``order``.
    """
    total = sum(distribution)
    shares = [distribution[DIMENSIONS.index(dimension)] for dimension in order]
    ends = [target_ratio * (sum(shares[: i + 1]) / total) for i in range(len(shares) - 1)]
    return dict(zip(order, [*ends, target_ratio], strict=True))


class MultiPruner(Method[MultiPrunerConfig]):
    """Three dimensions, one after the other, each down to its share of the target."""

    name = "multipruner"
    section = MultiPrunerConfig
    reach_depends_on = "this distribution and these group sizes"

    def phases(self, settings: MultiPrunerConfig, source: "ModelSource") -> tuple[Phase, ...]:  # noqa: ARG002
        """As ``prune.order`` and ``prune.distribution`` say."""
        sizes = {"mlp_channels": settings.mlp_group_size, "heads": settings.attn_group_size}
        ends = thresholds(settings.target_ratio, settings.distribution, settings.order)
        return tuple(
            Phase(
                dimension,
                STANDARD[dimension],
                end,
                sizes.get(dimension),
                "block" if dimension == "blocks" else "width",
            )
            for dimension, end in ends.items()
        )

    def criterion(self, settings: MultiPrunerConfig) -> Criterion:
        """Perplexity."""
        return Perplexity(settings.search, settings.audit_every)

    def order(self, settings: MultiPrunerConfig) -> Order | None:
        """As configured."""
        return ORDERS[settings.weight_reorder]

    def label(self, settings: MultiPrunerConfig) -> str:
        """The distribution."""
        return ":".join(f"{share:g}" for share in settings.distribution)

    def unusual(self, settings: MultiPrunerConfig) -> list[str]:
        """Search, order and weights that were not reordered."""
        shown: list[str] = [] if settings.search == "exhaustive" else [settings.search]
        if settings.order != list(DIMENSIONS):
            shown.append(" then ".join(settings.order))
        if (reordered := settings.weight_reorder) is not True:
            shown.append(f"reordered by {reordered}" if reordered else "not reordered")
        return shown

    def columns(self, settings: MultiPrunerConfig) -> dict[str, float]:
        """The distribution, in percent of what goes."""
        total = sum(settings.distribution)
        shares = zip(DIMENSIONS, settings.distribution, strict=True)
        return {f"percent_of_{name}": round(100 * share / total, 3) for name, share in shares}

    def tags(self, settings: MultiPrunerConfig) -> list[str]:
        """The search."""
        return [settings.search]

    def problems(self, settings: MultiPrunerConfig, source: "ModelSource") -> list[str]:
        """Group sizes fit the model, and what has a share of the target can be removed from it."""
        shape = source.shape
        problems = group_problems(settings.mlp_group_size, settings.attn_group_size, source)
        for dimension, share in zip(DIMENSIONS, settings.distribution, strict=True):
            barred = [shape.why_barred(unit.name) for unit in STANDARD[dimension]]
            if share and all(barred):
                problems.append(
                    f"prune.distribution: {dimension} has a share of {share:g}, and this model "
                    f"cannot lose any: {barred[0]}; give it a share of 0"
                )
        return problems

    def units_recipe(
        self,
        settings: MultiPrunerConfig,
        source: "ModelSource",  # noqa: ARG002
    ) -> dict[str, Any]:
        """The group sizes."""
        return {
            "mlp_group_size": settings.mlp_group_size,
            "attn_group_size": settings.attn_group_size,
        }

    def target_recipe(
        self,
        settings: MultiPrunerConfig,
        source: "ModelSource",  # noqa: ARG002
    ) -> dict[str, Any]:
        """Target, shares and order."""
        shares = settings.distribution
        return {
            "target_ratio": settings.target_ratio,
            "distribution": [share / sum(shares) for share in shares],
            "order": list(settings.order),
        }


METHOD = MultiPruner()
