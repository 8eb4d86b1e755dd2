"""MultiPruner: blocks, MLP channels and heads, each greedily by perplexity (arXiv 2501.09949).

Of mixtures of experts a fourth dimension are the experts; their channels are MLP channels, and go
of all experts of a layer at once.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, Field

from pipeline.criteria.base import Criterion
from pipeline.criteria.perplexity import Perplexity
from pipeline.methods.base import Method
from pipeline.methods.widths import WidthsConfig, group_problems
from pipeline.orders.base import Order
from pipeline.orders.experts import By, with_experts
from pipeline.orders.flap import FLAP
from pipeline.orders.l1 import L1
from pipeline.orders.taylor import TAYLOR
from pipeline.orders.wanda import WANDA
from pipeline.pruning.phases import STANDARD, Phase
from pipeline.pruning.units import ALL_MLP_CHANNELS, EXPERTS, Unit
from pipeline.settings.section import Execution

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource
    from pipeline.pruning.shape import ModelShape

ORDERS = {False: None, True: L1, "wanda": WANDA, "flap": FLAP, "taylor": TAYLOR}
"""By ``prune.weight_reorder``."""
Dimension = Literal["blocks", "mlp_channels", "heads", "experts"]
OF_MIXTURES: tuple[Dimension, ...] = get_args(Dimension)
DIMENSIONS = OF_MIXTURES[:3]
"""Those of models without mixtures of experts."""


def _is_distribution(value: list[float]) -> list[float]:
    counts = (len(DIMENSIONS), len(OF_MIXTURES))
    if len(value) not in counts or min(value) < 0 or not 0 < sum(value) < math.inf:
        raise ValueError(
            "allowed are three non-negative numbers with a positive sum, "
            "blocks : MLP channels : heads, e.g. [44,52,4], and a fourth for the experts of a "
            "mixture"
        )
    return value


def _is_order(value: list[Dimension]) -> list[Dimension]:
    if sorted(value) not in (sorted(DIMENSIONS), sorted(OF_MIXTURES)):
        raise ValueError(
            f"allowed is each of {', '.join(DIMENSIONS)} once, and experts where "
            "prune.distribution has a share for them"
        )
    return value


class ReorderedConfig(WidthsConfig):
    """Channels and heads, in groups, in an order that is chosen."""

    weight_reorder: bool | Literal["wanda", "flap", "taylor"] = True
    """Put the most important channels and heads first, so that the tail is the least important.
    true is by the L1 norms of their rows; wanda by weights times activations, flap by weighted
    fluctuation, taylor by weights times gradients, on the calibration text."""


class MultiPrunerConfig(ReorderedConfig):
    """Blocks, MLP channels and heads, one dimension after the other (arXiv 2501.09949)."""

    distribution: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]], AfterValidator(_is_distribution)
    ]
    """Shares of the target ratio: blocks, MLP channels, heads; of a mixture a fourth one, of its
    experts, and its MLP channels are those inside experts."""
    order: Annotated[list[Dimension], AfterValidator(_is_order)] = Field(list(DIMENSIONS))
    """Which dimension is pruned first, second and last; ``distribution`` keeps its own order.
    Experts, where they have a share and are not named, come after the blocks."""
    expert_group_size: int = Field(1, ge=1)
    """Experts of a mixture removed at a time. A mixture keeps as many as its router takes."""
    expert_order: By = "router"
    """What experts are put in order by, where they have a share: router is what each counts in what
    mixtures add on the calibration text, l1 the L1 norm of its weights. The last ones go first."""
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

    ``distribution`` has the shares of ``OF_MIXTURES``, or but the last; the dimensions come one
    after the other in ``order``.
    """
    total = sum(distribution)
    shares = [distribution[OF_MIXTURES.index(dimension)] for dimension in order]
    ends = [target_ratio * (sum(shares[: i + 1]) / total) for i in range(len(shares) - 1)]
    return dict(zip(order, [*ends, target_ratio], strict=True))


def _in_order(settings: MultiPrunerConfig) -> list[Dimension]:
    """The dimensions that have a share, one after the other."""
    if not _has_experts(settings):
        return [dimension for dimension in settings.order if dimension in DIMENSIONS]
    if "experts" in settings.order:
        return settings.order
    after = settings.order.index("blocks") + 1
    return [*settings.order[:after], "experts", *settings.order[after:]]


def _has_experts(settings: MultiPrunerConfig) -> bool:
    return len(settings.distribution) == len(OF_MIXTURES)


M = TypeVar("M", bound=MultiPrunerConfig)


class GreedyDimensions(Method[M]):
    """Its dimensions, one after the other, each down to its share of the target."""

    reach_depends_on = "this distribution and these group sizes"

    def phases(self, settings: M, source: "ModelSource") -> tuple[Phase, ...]:
        """As ``prune.order`` and ``prune.distribution`` say."""
        sizes = {
            "mlp_channels": settings.mlp_group_size,
            "heads": settings.attn_group_size,
            "experts": settings.expert_group_size,
        }
        ends = thresholds(settings.target_ratio, settings.distribution, _in_order(settings))
        return tuple(
            Phase(
                dimension,
                _units(dimension, settings, source),
                end,
                sizes.get(dimension),
                "block" if dimension == "blocks" else "width",
            )
            for dimension, end in ends.items()
        )

    def criterion(self, settings: M) -> Criterion:
        """Perplexity."""
        return Perplexity(settings.search, settings.audit_every)

    def order(self, settings: M) -> Order | None:
        """As configured."""
        channels = ORDERS[settings.weight_reorder]
        if not _has_experts(settings):
            return channels
        return with_experts(channels, settings.expert_order)

    def label(self, settings: M) -> str:
        """The distribution."""
        return ":".join(f"{share:g}" for share in settings.distribution)

    def unusual(self, settings: M) -> list[str]:
        """Search, order and weights that were not reordered."""
        shown: list[str] = [] if settings.search == "exhaustive" else [settings.search]
        if _has_experts(settings) and settings.expert_order != "router":
            shown.append(f"experts by {settings.expert_order}")
        if settings.order != list(DIMENSIONS):
            shown.append(" then ".join(settings.order))
        if (reordered := settings.weight_reorder) is not True:
            shown.append(f"reordered by {reordered}" if reordered else "not reordered")
        return shown

    def columns(self, settings: M) -> dict[str, float]:
        """The distribution, in percent of what goes."""
        total = sum(settings.distribution)
        shares = zip(OF_MIXTURES, settings.distribution, strict=False)
        return {f"percent_of_{name}": round(100 * share / total, 3) for name, share in shares}

    def tags(self, settings: M) -> list[str]:
        """The search."""
        return [settings.search]

    def problems(self, settings: M, source: "ModelSource") -> list[str]:
        """Group sizes fit the model, and what has a share of the target can be removed from it."""
        shape = source.shape
        problems = group_problems(settings.mlp_group_size, settings.attn_group_size, source)
        problems += _expert_problems(settings, shape)
        problems += _problems_inside(settings, shape)
        for dimension, share in zip(OF_MIXTURES, settings.distribution, strict=False):
            units = _units(dimension, settings, source)
            barred = [shape.why_barred(unit.name) for unit in units]
            if share and all(barred):
                problems.append(
                    f"prune.distribution: {dimension} has a share of {share:g}, and this model "
                    f"cannot lose any: {barred[0]}; give it a share of 0"
                )
        return problems

    def units_recipe(
        self,
        settings: M,
        source: "ModelSource",  # noqa: ARG002
    ) -> dict[str, Any]:
        """The group sizes."""
        sizes = {
            "mlp_group_size": settings.mlp_group_size,
            "attn_group_size": settings.attn_group_size,
        }
        experts = {"expert_group_size": settings.expert_group_size}
        return sizes | (experts if _has_experts(settings) else {})

    def target_recipe(
        self,
        settings: M,
        source: "ModelSource",  # noqa: ARG002
    ) -> dict[str, Any]:
        """Target, shares and order."""
        shares = settings.distribution
        return {
            "target_ratio": settings.target_ratio,
            "distribution": [share / sum(shares) for share in shares],
            "order": list(_in_order(settings)),
        }


class MultiPruner(GreedyDimensions[MultiPrunerConfig]):
    """The paper's method."""

    name = "multipruner"
    section = MultiPrunerConfig


def _units(
    dimension: Dimension, settings: MultiPrunerConfig, source: "ModelSource"
) -> tuple[Unit, ...]:
    """What may go in a dimension: of mixtures, too, where MLP channels have a share."""
    if dimension == "mlp_channels" and _takes_channels(settings) and source.may_have_mixtures:
        return ALL_MLP_CHANNELS
    return STANDARD[dimension]


def _takes_channels(settings: MultiPrunerConfig) -> bool:
    return settings.distribution[OF_MIXTURES.index("mlp_channels")] > 0


KERNELS_TAKE = 8
"""Channels: kernels of grouped experts take rows of whole 16 bytes."""


def _problems_inside(settings: MultiPrunerConfig, shape: "ModelShape") -> list[str]:
    """What is wrong with what is said of channels inside experts, for a model."""
    if not shape.has_mixtures or not _takes_channels(settings):
        return []
    problems, size, widths = [], settings.mlp_group_size, set(shape.expert_widths) - {0}
    width = max(widths)
    is_even = width > KERNELS_TAKE and all(width % KERNELS_TAKE == 0 for width in widths)
    if size >= width or (is_even and size % KERNELS_TAKE):
        allowed = f"a multiple of {KERNELS_TAKE}" if is_even else "a number"
        problems.append(
            f"prune.mlp_group_size: {size} is wrong; allowed is {allowed} below {width}: the "
            f"experts of this model's mixtures have {width} channels"
        )
    if settings.weight_reorder is not True:
        problems.append(
            f"prune.weight_reorder: {str(settings.weight_reorder).lower()} is wrong; allowed is "
            "true where MLP channels have a share: those inside experts go by their L1 norms"
        )
    return problems


def _expert_problems(settings: MultiPrunerConfig, shape: "ModelShape") -> list[str]:
    """What is wrong with what is said of experts, for a model."""
    if not _has_experts(settings):
        if "experts" not in settings.order:
            return []
        return [
            "prune.order: it names experts, which have no share; leave them out, or give "
            "prune.distribution a fourth number"
        ]
    if not shape.has_mixtures:
        return [
            f"prune.distribution: its fourth share, {settings.distribution[-1]:g}, is for the "
            "experts of a mixture, and this model has none; allowed are three numbers, "
            "blocks : MLP channels : heads"
        ]
    size = settings.expert_group_size
    spare = max(block.width - block.least(EXPERTS.name) for block in shape.mixtures.values())
    if settings.distribution[-1] and size > spare:
        block = next(iter(shape.mixtures.values()))
        return [
            f"prune.expert_group_size: {size} is wrong; allowed is a number from 1 to {spare}: "
            f"this model's mixtures have {block.width} experts, of which a token takes "
            f"{block.least(EXPERTS.name)}"
        ]
    return []


METHOD = MultiPruner()
