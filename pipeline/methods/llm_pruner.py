"""LLM-Pruner: channels and heads by first-order Taylor importance (arXiv 2305.11627).

Of its importances those that its code calls param_first, l1 and l2, each summed over all weights
that go together; l2 is the sum of squares, without a root, as there. With grouped heads its code
folds query rows onto key rows by their place; here a key/value head counts its own query heads.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pipeline.methods.sections import KeptLayersConfig
from pipeline.methods.widths import WidthsConfig, WidthsMethod
from pipeline.orders.base import Order
from pipeline.orders.magnitude import of_groups
from pipeline.orders.taylor import TAYLOR
from pipeline.pruning.phases import Phase

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

ORDERS = {"taylor": TAYLOR, "l1": of_groups(1), "l2": of_groups(2)}
"""By ``prune.importance``."""


class LlmPrunerConfig(WidthsConfig, KeptLayersConfig):
    """Channels and heads by weights and gradients (arXiv 2305.11627)."""

    importance: Literal["taylor", "l1", "l2"] = "taylor"
    """taylor: the sum of abs(weight x gradient) over a group's weights; l1: of abs(weight); l2: of
    squared weights."""


class LlmPruner(WidthsMethod[LlmPrunerConfig]):
    """All blocks between the layers that are kept lose the same share."""

    name = "llm_pruner"
    section = LlmPrunerConfig
    reach_depends_on = "prune.keep_first, prune.keep_last and these group sizes"

    def phases(self, settings: LlmPrunerConfig, source: "ModelSource") -> tuple[Phase, ...]:
        """One, down to the target."""
        (phase,) = super().phases(settings, source)
        return (replace(phase, keep_first=settings.keep_first, keep_last=settings.keep_last),)

    def order(self, settings: LlmPrunerConfig) -> Order:
        """As configured."""
        return ORDERS[settings.importance]

    def unusual(self, settings: LlmPrunerConfig) -> list[str]:
        """The importance."""
        return [settings.importance]


METHOD = LlmPruner()
