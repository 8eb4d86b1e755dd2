"""Gradients of the dense model's loss on calibration text, as products with the weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.errors import StageError
from pipeline.models.blocks import Block
from pipeline.models.prunable import PrunableModel
from pipeline.scoring.memory import free_bytes
from pipeline.scoring.perplexity import LOGITS_AT_ONCE, Windows

GIGABYTE = 10**9
IGNORED = -100
"""In the place of targets that do not count."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """First-order effects on the loss, by ``BLOCK.NAME``, on the CPU, float32.

    With w a weight and g the gradient of the mean loss of all windows in it, each block has

    - ``groups``: the sum of abs(w g) over the weights of each group of channels, ``[groups]``,
      which no mixture of experts has;
    - ``whole``: the same over all of the block's parameters, its norms included.
    """

    values: Mapping[str, Tensor]

    def of(self, block: str, name: str) -> Tensor:
        """One of the numbers."""
        return self.values[f"{block}.{name}"]


def collect(
    model: PrunableModel, windows: Windows, on_progress: Callable[[float], None] = lambda _: None
) -> Gradients:
    """Gradients of a dense model whose weights are all on its device.

    One window at a time: its hidden states are kept before every block, and going back each block
    runs once more; ``on_progress`` is called with each window's share. Beside the model there are
    the gradients of all blocks in float32. Raises ``StageError`` where memory cannot hold them.
    """
    _require_room(model, windows.ids.shape[1])
    products = {id(p): torch.zeros_like(p, dtype=torch.float32) for p in _parameters(model.blocks)}
    for ids in windows.ids.to(model.device).split(1):
        _add_window(model, ids, windows.eos_id, len(windows.ids), products)
        on_progress(1 / len(windows.ids))
    values: dict[str, Tensor] = {}
    for block in model.blocks:
        for parameter in block.parameters():
            products[id(parameter)].mul_(parameter.detach()).abs_()
        if not block.is_mixture:
            values[f"{block.name}.groups"] = block.group_sums(lambda w: products[id(w)]).cpu()
        whole = sum(products[id(p)].double().sum() for p in block.parameters())
        values[f"{block.name}.whole"] = torch.as_tensor(whole, dtype=torch.float32).cpu()
    return Gradients(values)


def _add_window(
    model: PrunableModel, ids: Tensor, eos_id: int | None, windows: int, sums: dict[int, Tensor]
) -> None:
    """Add the gradient of one window's share of the loss to ``sums``, by the parameter's id.

    The loss is scaled by the number of tokens, so that gradients in float16 do not vanish.
    """
    entered = model.decoder_input(ids)
    hidden, inputs = entered.hidden, []
    with torch.no_grad():
        for block, context in zip(model.blocks, entered.contexts, strict=True):
            inputs.append(hidden)
            hidden = block(hidden, context)
    gradient, counted = _of_loss(model, hidden, ids, eos_id)
    for block, context in reversed(list(zip(model.blocks, entered.contexts, strict=True))):
        before = inputs.pop().requires_grad_()
        parameters = list(block.parameters())
        with torch.enable_grad(), _trained(parameters):
            after = block(before, context)
            gradient, *of_weights = torch.autograd.grad(after, [before, *parameters], gradient)
        for parameter, each in zip(parameters, of_weights, strict=True):
            sums[id(parameter)].add_(each.float(), alpha=1 / (counted * windows))


def _of_loss(
    model: PrunableModel, hidden: Tensor, ids: Tensor, eos_id: int | None
) -> tuple[Tensor, int]:
    """The gradient of a window's summed loss in the last hidden states, and tokens that count."""
    targets = ids[0, 1:]
    if eos_id is not None:
        targets = targets.masked_fill(targets == eos_id, IGNORED)
    gradient = torch.zeros_like(hidden)
    rows = max(1, LOGITS_AT_ONCE[model.device.type] // model.vocabulary_size)
    parts = (each.split(rows) for each in (hidden[0, :-1], targets, gradient[0, :-1]))
    for states, wanted, of_states in zip(*parts, strict=True):
        leaf = states.detach().requires_grad_()
        with torch.enable_grad():
            logits = model.logits(model.normed(leaf)).float()
            loss = cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
        of_states.copy_(*torch.autograd.grad(loss, leaf))
    return gradient, int((targets != IGNORED).sum())


@contextmanager
def _trained(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Have gradients computed of these meanwhile."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


def _parameters(blocks: Sequence[Block]) -> Iterator[nn.Parameter]:
    return (parameter for block in blocks for parameter in block.parameters())


def _require_room(model: PrunableModel, seqlen: int) -> None:
    """Raise ``StageError`` where memory cannot hold what is beside the model."""
    weights = sum(parameter.numel() for parameter in _parameters(model.blocks))
    widest = max(block.working_width for block in model.blocks)
    state = seqlen * model.hidden_size * model.model.dtype.itemsize
    working = seqlen * 16 * widest * model.model.dtype.itemsize
    needed = 4 * weights + state * (len(model.blocks) + 4) + working
    free = free_bytes(model.device)
    if needed > free:
        raise StageError(
            f"gradients take about {needed / GIGABYTE:.1f} GB beside the model, and "
            f"{free / GIGABYTE:.1f} GB are free on {model.device}; use a larger device, "
            "model.dtype=bfloat16 or float16, or a criterion without gradients"
        )
