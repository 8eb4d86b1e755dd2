"""The mathematics: factors of removed blocks, ridge regressions, and weights that take them on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.models.blocks import Block

ATTEMPTS = 8
"""How often a regression is tried, each time with ten times the damping."""


class AbsoluteSums:
    """How large hidden states are before and after a block: sums over tokens, float64 ``[hidden]``.

    ``ratio`` is alpha of Prune&Comp (arXiv 2507.18212): the mean over channels of the mean absolute
    value after the block over that before it.
    """

    def __init__(self, hidden: int, device: torch.device) -> None:
        self.before, self.after = torch.zeros(2, hidden, dtype=torch.float64, device=device)

    def add(self, before: Tensor, after: Tensor) -> None:
        """Hidden states ``[tokens, hidden]``."""
        self.before += before.abs().sum(dim=0, dtype=torch.float64)
        self.after += after.abs().sum(dim=0, dtype=torch.float64)

    @property
    def ratio(self) -> float:
        """Channels that never carry anything do not count. Raises ``StageError``."""
        carries = self.before > 0
        ratio: float = (self.after[carries] / self.before[carries]).mean().item()
        if not 0 < ratio < float("inf"):
            raise StageError(NOT_FINITE)
        return ratio


class NormalEquations:
    """Ridge regression of errors on the inputs of a layer: products in float32, sums in float64."""

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        self.gram = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
        self.cross = torch.zeros(inputs, outputs, dtype=torch.float64, device=device)

    def add(self, inputs: Tensor, errors: Tensor) -> None:
        """Inputs ``[tokens, inputs]`` and errors ``[tokens, outputs]``, of one number format."""
        self.gram += inputs.T @ inputs
        self.cross += inputs.T @ errors

    def solve(self, damping: float) -> Tensor:
        """D ``[inputs, outputs]`` with least ``|errors - inputs D|^2 + strength |D|^2``, float64.

        ``strength`` is ``damping`` times the mean of the Gram matrix's diagonal. Inputs that are
        always 0 get 0. Raises ``StageError`` where the sums are not finite.
        """
        diagonal = self.gram.diagonal()
        strength = damping * diagonal.mean()
        diagonal[diagonal == 0] = 1
        added = strength
        for _ in range(ATTEMPTS):
            diagonal += added
            factor, failed = torch.linalg.cholesky_ex(self.gram)
            if not failed:
                solved = torch.cholesky_solve(self.cross, factor)
                if solved.isfinite().all():
                    return solved
            strength, added = 10 * strength, 9 * strength
        raise StageError(NOT_FINITE)


NOT_FINITE = (
    "the model cannot be compensated: its hidden states are not finite numbers, or all zeros; "
    "use model.dtype=float32 or bfloat16"
)


def adjustable(block: Block) -> dict[str, nn.Parameter]:
    """What is changed of a block, by the names of ``PrunableModel.weights``.

    The output layer; its norm where the family has one behind it, as that undoes any factor.
    """
    has_norm = not isinstance(block.norm_after, nn.Identity)
    changed = block.norm_after.parameters() if has_norm else block.output_parameters
    own = {id(parameter) for parameter in changed}
    named = block.named_parameters(prefix=block.name)
    return {name: parameter for name, parameter in named if id(parameter) in own}


def copied(block: Block) -> dict[str, Tensor]:
    """The present values of what is changed of a block, in CPU memory."""
    return {name: each.detach().to("cpu", copy=True) for name, each in adjustable(block).items()}


def divide(block: Block, factor: float) -> None:
    """Divide what a block adds by ``factor``."""
    offset = _offset(block.norm_after)
    _edit(block, lambda each: (each.double() + offset) / factor - offset)


def correct(block: Block, difference: Tensor) -> None:
    """Add a regression's result to the output layer: ``[inputs, outputs]``, last a bias's row."""
    output, own = block.output, difference / block.multiplier
    weight, bias = own[: output.in_features].T, own[output.in_features :]
    _edit(block, lambda each: each.double() + (bias[0] if each is output.bias else weight))


@torch.no_grad()
def _edit(block: Block, new: Callable[[nn.Parameter], Tensor]) -> None:
    """Give what is changed of a block new values, wherever its weights stay."""
    if block.offloaded:
        block.offloaded.bring()
    for parameter in adjustable(block).values():
        parameter.copy_(new(parameter))
    if block.offloaded:
        block.offloaded.keep(block.parameters())


def _offset(norm: nn.Module) -> float:
    """What a norm adds to its weight: 1 where it stores the difference to 1 (Gemma), else 0."""
    if isinstance(norm, nn.Identity):
        return 0.0
    ((name, weight),) = norm.named_parameters()
    zeros, ones = torch.zeros_like(weight), torch.ones_like(weight)
    of_zeros, of_ones = (
        torch.func.functional_call(norm, {name: each}, (ones,)) for each in (zeros, ones)
    )
    offset: float = (of_zeros / (of_ones - of_zeros)).mean().round().item()
    return offset
