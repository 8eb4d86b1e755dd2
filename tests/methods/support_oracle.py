"""What a method decides on a model in memory, without stages; and the stock model with hooks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from support_inputs import CONF, configured
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.criteria.base import CALIBRATION, CHANNEL_SCORES, GRADIENTS, STATISTICS, Material
from pipeline.methods import methods
from pipeline.models.loading import DenseLoader, LiveModel
from pipeline.models.ordering import ChannelOrder
from pipeline.models.source import locate
from pipeline.models.variants import Variant, dense_lineage
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.scoring.perplexity import Windows
from pipeline.statistics import activations, gradients

Piece = tuple[str, int]
"""A unit's name and a layer."""


# ---- ours


@dataclass
class Decided:
    """What came of a method."""

    steps: list[Step]
    state: PruningState
    order: ChannelOrder | None

    @property
    def removed(self) -> list[Piece]:
        """What went, in its order."""
        return [(step.chosen.unit.name, step.chosen.layer) for step in self.steps]

    def kept(self, block: str) -> list[int]:
        """Groups of a block that are left, by their places in the dense model."""
        kind, layer = block.split(".")
        assert self.order
        group = self.state.shape.block(kind, int(layer)).group_width
        width = self.state.widths(kind)[int(layer)]
        return sorted(self.order.groups[block][: width // group])


def decided(name: str, folder: Path, ids: Tensor, **settings: Any) -> Decided:
    """Follow a method to its target; ``settings`` are its keys, else as its yaml has them."""
    method = methods()[name]
    given = yaml.safe_load((CONF / "prune" / f"{name}.yaml").read_text("utf-8"))
    own = method.section.model_validate({**given, **settings})
    config = configured("model=hf", f"model.path={folder}", "model.device=cpu")
    source = locate(str(folder), None, None)
    windows = Windows(ids, None)

    def live(reorder: bool | ChannelOrder) -> LiveModel:
        loader = DenseLoader(source, "float32", "cpu", "sdpa", "none", reorder)
        return LiveModel(loader, loader.lineage("files:test"))

    plain = live(reorder=False)
    dense = PruningState.dense(source.shape)
    model = plain.at(Variant.cut(dense, dense_lineage("files:test", reordered=False)))
    order, criterion = method.order(own), method.criterion(own)
    needs = criterion.needs | (order.needs if order else frozenset())
    supplied: dict[Any, Any] = {CALIBRATION: windows}
    if STATISTICS in needs:
        supplied[STATISTICS] = activations.collect(model, windows, rows=3)
    if GRADIENTS in needs:
        supplied[GRADIENTS] = gradients.collect(model, windows)
    ordered = None
    if order and order.is_stored:
        scores = {b.name: order.scores(b, Material(plain, supplied)).float() for b in model.blocks}
        ordered = ChannelOrder.by(order.name, scores)
        supplied[CHANNEL_SCORES] = {n: s[list(ordered.groups[n])] for n, s in scores.items()}
    reordered = live(ordered or order is not None)
    state, steps = dense, []
    for phase in method.phases(own, source):
        scorer, last = criterion.scorer(config, Material(reordered, supplied)), None
        while state.ratio_percent < phase.end_percent and (found := phase.candidates(state)):
            last = method.choice.step(scorer, len(steps), state, found, last)
            assert last.follows_its_scores
            state = state.without(last.chosen)
            steps.append(last)
    return Decided(steps, state, ordered)


# ---- the stock model


def stock(folder: Path) -> PreTrainedModel:
    """The model as transformers has it."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def modules_of(model: PreTrainedModel, unit: str, layer: int) -> list[nn.Module]:
    """What a unit is made of."""
    whole = model.model.layers[layer]
    return {"attn": [whole.self_attn], "mlp": [whole.mlp], "layer": [whole.self_attn, whole.mlp]}[
        unit
    ]


@contextmanager
def silent(model: PreTrainedModel, pieces: list[Piece]) -> Iterator[None]:
    """Have these pieces add nothing meanwhile."""

    def nothing(_module: nn.Module, _inputs: object, out: Any) -> Any:
        return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else out * 0

    handles = [
        module.register_forward_hook(nothing)
        for unit, layer in pieces
        for module in modules_of(model, unit, layer)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def perplexity(model: PreTrainedModel, ids: Tensor) -> float:
    """All tokens count, windows are of equal length."""
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    return float(nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).exp())


def params_of(model: PreTrainedModel, unit: str, layer: int) -> int:
    """Parameters that go with a unit; norms stay."""
    return sum(p.numel() for m in modules_of(model, unit, layer) for p in m.parameters())


def total(model: PreTrainedModel) -> int:
    """All parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def until(model: PreTrainedModel, pieces: Iterator[Piece], percent: float) -> list[Piece]:
    """The first pieces, up to the one with which so much of the model is gone."""
    gone, taken = 0, []
    for piece in pieces:
        if gone >= percent / 100 * total(model):
            break
        taken.append(piece)
        gone += params_of(model, *piece)
    return taken


def greedy(
    model: PreTrainedModel, pieces: list[Piece], score: Callable[[list[Piece]], float]
) -> Iterator[Piece]:
    """In every step the piece without which, and without those before, the score is lowest."""
    left, gone = list(pieces), []
    while left:
        best = min(left, key=lambda piece: score([*gone, piece]))
        left.remove(best)
        gone.append(best)
        yield best


@torch.no_grad()
def streams(model: PreTrainedModel, ids: Tensor) -> dict[Piece, tuple[Tensor, Tensor]]:
    """What enters and leaves every attention, MLP and layer, ``[windows, tokens, hidden]``."""
    seen: dict[Piece, tuple[Tensor, Tensor]] = {}
    handles = []
    for i, layer in enumerate(model.model.layers):

        def whole(_module: nn.Module, inputs: Any, out: Any, i: int = i) -> None:
            after = out[0] if isinstance(out, tuple) else out
            seen["layer", i] = (inputs[0], after)

        def attention(_module: nn.Module, _inputs: Any, out: Any, i: int = i) -> None:
            seen["attn added", i] = (out[0], out[0])

        handles.append(layer.register_forward_hook(whole))
        handles.append(layer.self_attn.register_forward_hook(attention))
    model(ids)
    for handle in handles:
        handle.remove()
    for i in range(len(model.model.layers)):
        (before, after), (added, _) = seen["layer", i], seen.pop(("attn added", i))
        seen["attn", i], seen["mlp", i] = (before, before + added), (before + added, after)
    return seen


@torch.no_grad()
def channels(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """What enters the last linear layer of every block, ``[windows, tokens, width]``."""
    seen: dict[str, Tensor] = {}
    handles = []
    for i, layer in enumerate(model.model.layers):
        for name, linear in (("attn", layer.self_attn.o_proj), ("mlp", layer.mlp.down_proj)):

            def note(_module: nn.Module, inputs: Any, key: str = f"{name}.{i}") -> None:
                seen[key] = inputs[0]

            handles.append(linear.register_forward_pre_hook(note))
    model(ids)
    for handle in handles:
        handle.remove()
    return seen


def output(model: PreTrainedModel, block: str) -> Tensor:
    """The weight of the last linear layer of a block, ``[hidden, width]``."""
    kind, layer = block.split(".")
    whole = model.model.layers[int(layer)]
    return (whole.self_attn.o_proj if kind == "attn" else whole.mlp.down_proj).weight.detach()


def by_head(model: PreTrainedModel, block: str, columns: Tensor) -> Tensor:
    """Columns as groups: of an attention those of a key/value head, ``[groups, columns]``."""
    heads = model.config.num_key_value_heads
    return columns.view(heads, -1) if block.startswith("attn") else columns.view(-1, 1)


def params_of_group(model: PreTrainedModel, block: str, groups: int) -> int:
    """Parameters that go with one of so many groups of a block, biases of rows included."""
    kind, layer = block.split(".")
    (body,) = modules_of(model, kind, int(layer))
    fixed = [
        p for name, p in body.named_parameters() if name.endswith(("o_proj.bias", "down_proj.bias"))
    ]
    return (sum(p.numel() for p in body.parameters()) - sum(p.numel() for p in fixed)) // groups


def widths_left(
    model: PreTrainedModel,
    scores: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    percent: float,
    *,
    uniform: bool,
) -> dict[str, list[int]]:
    """The groups that each block keeps, by their places.

    Of each block the lowest go first, ``sizes`` at a time (by kind, in groups), never the last of
    them. All blocks lose the same share, or the lowest mean scores of all go.
    """
    ranked = {
        block: each.argsort(descending=True, stable=True).tolist() for block, each in scores.items()
    }
    cuts = []
    for place, (block, each) in enumerate(scores.items()):
        size, count = sizes[block.split(".")[0]], len(each)
        for number in range(1, (count - 1) // size + 1):
            tail = ranked[block][count - number * size : count - (number - 1) * size]
            mean = each[tail].mean().item()
            is_mlp = block.startswith("mlp")
            rank = (number * size / count, mean) if uniform else (mean,)
            cuts.append((*rank, is_mlp, place, block, size))
    left, gone = {block: len(each) for block, each in scores.items()}, 0
    for *_, block, size in sorted(cuts):
        if gone >= percent / 100 * total(model):
            break
        left[block] -= size
        gone += size * params_of_group(model, block, len(scores[block]))
    return {block: sorted(ranked[block][:count]) for block, count in left.items()}
