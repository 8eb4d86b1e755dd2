"""MultiPruner with NSGA-II over the widths (arXiv 2501.09949, section 2.1 and algorithm 2).

The paper: blocks greedily to half of the target, then MLP channels and heads together by NSGA-II,
by calibration perplexity and ratio. It states no population, generations, mutation or step sizes,
and its code is not published; those here are ours. So is that the search starts from the states of
the greedy way, and that other text decides between the best of the last front.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from pipeline.criteria.base import Criterion
from pipeline.criteria.perplexity import Perplexity
from pipeline.evolution.genetic import Genetic
from pipeline.methods.base import Method
from pipeline.methods.multipruner import ORDERS, ReorderedConfig
from pipeline.methods.widths import group_problems
from pipeline.orders.base import Order
from pipeline.pruning.phases import STANDARD, Phase
from pipeline.pruning.units import ATTN_WIDTH, MLP_WIDTH, Unit

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


def _is_even(value: int) -> int:
    if value < 4 or value % 2:  # noqa: PLR2004 - two pairs
        raise ValueError("allowed is an even number from 4 on: children come from pairs of states")
    return value


class MultiPrunerEvolConfig(ReorderedConfig):
    """Blocks greedily, then MLP channels and heads together by NSGA-II (arXiv 2501.09949)."""

    block_share: float = Field(0.5, ge=0, lt=1, allow_inf_nan=False)
    """Share of the target that goes as blocks; the paper's is half."""
    mlp_share: float = Field(0.93, ge=0, le=1, allow_inf_nan=False)
    """Share of the rest that goes as MLP channels on the greedy way, from whose states the search
    starts; heads have what is left. The search is free of it."""
    population: Annotated[int, AfterValidator(_is_even)] = 50
    """States of a generation."""
    generations: int = Field(20, ge=1)
    """Generations, the first one included."""
    mutation: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    """The chance of each width to change in a child; null is one over their number."""
    near: float = Field(2.0, gt=0, lt=100, allow_inf_nan=False)
    """States count whose ratio is within so many percent points of the target; others are not
    evaluated."""
    finalists: int = Field(8, ge=1)
    """States of the last front, those nearest to the target, that are ranked again."""
    seed: int = 0
    """Another seed proposes other states; what it meets that was evaluated before is found."""


class MultiPrunerEvol(Method[MultiPrunerEvolConfig]):
    """Blocks to their share of the target, then widths."""

    name = "multipruner_evol"
    section = MultiPrunerEvolConfig
    reach_depends_on = "these shares and group sizes"

    def phases(
        self,
        settings: MultiPrunerEvolConfig,
        source: "ModelSource",  # noqa: ARG002
    ) -> tuple[Phase, ...]:
        """Blocks; then, greedily, the widths that the search starts from."""
        target, blocks = settings.target_ratio, settings.block_share
        mlp = target * (blocks + (1 - blocks) * settings.mlp_share)
        ends = {"blocks": target * blocks, "mlp_channels": mlp, "heads": target}
        sizes = {"mlp_channels": settings.mlp_group_size, "heads": settings.attn_group_size}
        return tuple(
            Phase(
                dimension,
                STANDARD[dimension],
                end,
                sizes.get(dimension),
                "width" if dimension in sizes else "block",
            )
            for dimension, end in ends.items()
        )

    def criterion(self, settings: MultiPrunerEvolConfig) -> Criterion:  # noqa: ARG002
        """Perplexity."""
        return Perplexity()

    def order(self, settings: MultiPrunerEvolConfig) -> Order | None:
        """As configured."""
        return ORDERS[settings.weight_reorder]

    def search(self, settings: MultiPrunerEvolConfig) -> Genetic:
        """As configured."""
        return Genetic(
            settings.population,
            settings.generations,
            settings.mutation,
            settings.near,
            settings.finalists,
            settings.seed,
        )

    def narrows(
        self,
        settings: MultiPrunerEvolConfig,  # noqa: ARG002
        source: "ModelSource",
        unit: Unit | None = None,
    ) -> bool:
        """MLPs and attentions, as far as the model can lose their channels."""
        searched = [each for each in _WIDTHS if not source.shape.why_barred(each.name)]
        return bool(searched) if unit is None else unit in searched

    def unusual(self, settings: MultiPrunerEvolConfig) -> list[str]:
        """The share of blocks, and the seed."""
        return [f"{settings.block_share:g} of it blocks", f"seed {settings.seed}"]

    def problems(self, settings: MultiPrunerEvolConfig, source: "ModelSource") -> list[str]:
        """Group sizes fit the model, and what has a share of the target can be removed from it."""
        problems = group_problems(settings.mlp_group_size, settings.attn_group_size, source)
        shape = source.shape
        no_mlp, no_heads = (shape.why_barred(each.name) for each in _WIDTHS)
        if no_mlp and settings.mlp_share > 0:
            problems.append(
                f"prune.mlp_share: {settings.mlp_share:g} is wrong; allowed is 0: this model "
                f"cannot lose MLP channels: {no_mlp}"
            )
        if no_heads and settings.mlp_share < 1:
            problems.append(
                f"prune.mlp_share: {settings.mlp_share:g} is wrong; allowed is 1: this model "
                f"cannot lose heads: {no_heads}"
            )
        return problems or super().problems(settings, source)


_WIDTHS = (MLP_WIDTH, ATTN_WIDTH)

METHOD = MultiPrunerEvol()
