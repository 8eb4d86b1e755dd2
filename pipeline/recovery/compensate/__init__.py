"""Compensation in closed form: the blocks that are left make up for what was removed.

Forward passes over text, no training. Only what the blocks' output layers (or the norms behind
them) hold is changed, so the model keeps its shape.

- ``scalar``: a removed block changed how large the hidden states are; every later block is divided
  by that factor (Prune&Comp, arXiv 2507.18212).
- ``ls``: each output layer is fitted anew by ridge regression towards its present weights, so that
  the hidden states behind it meet those of the dense model behind the same block and the removed
  ones after it (least squares as in OSSCAR, arXiv 2403.12983, and for removed blocks as in
  ReplaceMe, arXiv 2505.02819).
- ``scalar+ls``: the factors first; the regression then aims at the dense states divided by them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.files import Json
from pipeline.pruning.shape import BLOCK_KINDS
from pipeline.recovery.base import Recovering, Technique, TechniqueConfig

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class CompensateConfig(TechniqueConfig):
    """The blocks that are left make up for what was removed, without training."""

    mode: Literal["scalar", "ls", "scalar+ls"] = "scalar+ls"
    """scalar: one factor for each removed block. ls: least squares for the output layers.
    scalar+ls: both."""
    streams: Literal["sequential", "dense"] = "sequential"
    """Whose hidden states a regression sees. sequential: those of the pruned model as far as it is
    compensated. dense: those of the dense model."""
    blocks: Literal["all", "changed"] = "all"
    """Which output layers are fitted. changed: of blocks that are narrower, or in front of removed
    ones; so it always is with dense."""
    damping: float = Field(0.1, gt=0)
    """How strongly regressions hold on to the present weights, in means of the diagonal of their
    normal equations."""
    guard: bool = True
    """Whether held-out texts are to show that it helps: where one becomes worse, a part of every
    block's regression or all of some blocks' is taken back."""


def refused(source: "ModelSource", settings: CompensateConfig, _offload: str) -> str | None:
    """Regressions do not reach through a norm behind the output layer."""
    blocks = [layer.block(kind) for layer in source.layers for kind in BLOCK_KINDS]
    if settings.mode == "scalar" or not any(b and b.layout.norm_after for b in blocks):
        return None
    return (
        f"recover.compensate.mode: {settings.mode} cannot be had of {source.architecture} models, "
        "which norm what a block adds; use recover.compensate.mode=scalar"
    )


def run(recovering: Recovering) -> Mapping[str, Json]:
    """Compensate the live model; the perplexity of held-out texts before and after."""
    from pipeline.recovery.compensate.guard import compensate

    return compensate(recovering)


TECHNIQUE = Technique("compensate", CompensateConfig, "compensated", run, refused)
