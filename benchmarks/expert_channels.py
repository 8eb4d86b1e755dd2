#!/usr/bin/env python3
"""What a mixture loses with experts, with channels inside all of them, and with both.

python benchmarks/expert_channels.py FOLDER... [--group 12] [--windows 16]

Each folder is a mixture that benchmarks/mixture.py trained. Its weights are sliced here, without
the pipeline: a layer loses its last expert, or the last channels of all its experts, and always the
layer goes that leaves the lowest calibration perplexity. Experts are in order by what the router
gives them, channels inside each expert by the L1 norm of their rows of gate and up. Printed are,
for shares of all parameters, what was removed, the held-out perplexity, and in percent of the dense
model's the parameters that a token passes.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, MixtralForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mixture import windows

SHARES = (10, 20, 30, 40, 50)
BATCH = 32


@dataclass(frozen=True)
class Widths:
    """What is left in every layer."""

    experts: tuple[int, ...]
    """0 where the whole mixture is gone."""
    channels: tuple[int, ...]
    """Of each expert."""


Candidates = Callable[[Widths], Iterator[Widths]]


class Mixture:
    """A model whose experts, and the channels in each, are in an order; cut to any widths."""

    def __init__(self, folder: Path, calibration: Tensor) -> None:
        self.model = MixtralForCausalLM.from_pretrained(folder).eval()
        self.bodies = [layer.mlp for layer in self.model.model.layers]
        config = self.model.config
        self.chosen = config.num_experts_per_tok
        self.calibration = calibration
        layers = config.num_hidden_layers
        self.dense = Widths(
            (config.num_local_experts,) * layers, (config.intermediate_size,) * layers
        )
        self.total = sum(p.numel() for p in self.model.parameters())
        self.stock = [
            [
                p.detach().clone()
                for p in (b.gate.weight, b.experts.gate_up_proj, b.experts.down_proj)
            ]
            for b in self.bodies
        ]
        self.kept = self.stock
        self.known: dict[Widths, float] = {}
        """Calibration perplexities, once experts and channels are in order."""

    def order(self) -> None:
        """Put experts and channels in order, the most important first."""
        ordered = []
        for mass, (route, gate_up, down) in zip(self._router_mass(), self.stock, strict=True):
            first = mass.argsort(descending=True)
            gate, up = gate_up.chunk(2, 1)
            norms = gate.abs().sum(2) + up.abs().sum(2)
            inside = norms.argsort(1, descending=True)
            rows = inside.unsqueeze(2).expand_as(gate)
            both = torch.cat([gate.gather(1, rows), up.gather(1, rows)], 1)
            columns = down.gather(2, inside.unsqueeze(1).expand_as(down))
            ordered.append([route[first], both[first], columns[first]])
        self.kept = ordered

    @torch.no_grad()
    def _router_mass(self) -> list[Tensor]:
        """By layer what the router gives to each expert on calibration text."""
        mass = [torch.zeros(len(route)) for route, _, _ in self.stock]

        def see(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                _, chosen, shares = inputs
                mass[layer].index_add_(0, chosen.flatten(), shares.flatten())

            return look

        experts = [body.experts for body in self.bodies]
        hooks = [each.register_forward_pre_hook(see(at)) for at, each in enumerate(experts)]
        self._perplexity(self.calibration)
        for hook in hooks:
            hook.remove()
        return mass

    @torch.no_grad()
    def cut(self, widths: Widths) -> None:
        """Slice the weights to these widths; a mixture that is gone adds nothing."""
        for layer, (route, gate_up, down) in enumerate(self.kept):
            experts, channels = widths.experts[layer] or self.chosen, widths.channels[layer]
            gate, up = (half[:experts, :channels] for half in gate_up.chunk(2, 1))
            last = down[:experts, :, :channels]
            if not widths.experts[layer]:
                last = torch.zeros_like(last)
            body = self.bodies[layer]
            body.gate.weight, body.experts.gate_up_proj, body.experts.down_proj = (
                nn.Parameter(each.contiguous(), requires_grad=False)
                for each in (route[:experts], torch.cat([gate, up], 1), last)
            )
            body.experts.num_experts = body.gate.num_experts = experts

    @torch.no_grad()
    def _perplexity(self, ids: Tensor) -> float:
        losses = [
            self.model(input_ids=part, labels=part).loss * len(part) for part in ids.split(BATCH)
        ]
        return float((sum(losses) / len(ids)).exp())

    def perplexity(self, widths: Widths, ids: Tensor) -> float:
        """Of windows, with these widths."""
        self.cut(widths)
        return self._perplexity(ids)

    def calibrated(self, widths: Widths) -> float:
        """The perplexity that decides."""
        if widths not in self.known:
            self.known[widths] = self.perplexity(widths, self.calibration)
        return self.known[widths]

    def removed(self, widths: Widths) -> float:
        """Parameters that went, in percent of all."""
        return (self.total - self._count(widths, len(self.stock[0][0]))) / self.total * 100

    def active(self, widths: Widths) -> float:
        """Parameters that a token passes, in percent of the dense model's."""
        return self._count(widths, self.chosen) / self._count(self.dense, self.chosen) * 100

    def _count(self, widths: Widths, most: int) -> int:
        """Parameters, with at most so many experts of each layer; all of the router's count."""
        hidden = self.stock[0][0].shape[1]
        full = sum(p.numel() for weights in self.stock for p in weights)
        left = sum(
            experts * hidden + 3 * hidden * channels * min(experts, most)
            for experts, channels in zip(widths.experts, widths.channels, strict=True)
        )
        return self.total - full + left

    def mixtures(self, widths: Widths) -> Iterator[Widths]:
        """Without a whole mixture."""
        for layer, left in enumerate(widths.experts):
            if left:
                yield replace(widths, experts=_less(widths.experts, layer, left))

    def experts(self, widths: Widths) -> Iterator[Widths]:
        """Without the last expert of a layer."""
        for layer, left in enumerate(widths.experts):
            if left > self.chosen:
                yield replace(widths, experts=_less(widths.experts, layer, 1))

    def channels(self, group: int) -> Candidates:
        """Without the last channels of all experts of a layer."""

        def inside(widths: Widths) -> Iterator[Widths]:
            for layer, left in enumerate(widths.channels):
                if left > group and widths.experts[layer]:
                    yield replace(widths, channels=_less(widths.channels, layer, group))

        return inside

    def lose(self, widths: Widths, percent: float, candidates: Candidates) -> Iterator[Widths]:
        """The state of every step, until ``percent`` of all parameters went or nothing may go."""
        while self.removed(widths) < percent and (after := list(candidates(widths))):
            widths = min(after, key=self.calibrated)
            yield widths

    def lose_by_parameter(self, percent: float, candidates: Candidates) -> Iterator[Widths]:
        """The same, by the least rise of log-perplexity for each parameter."""

        def price(after: Widths) -> float:
            rise = math.log(self.calibrated(after) / self.calibrated(widths))
            return rise / (self.removed(after) - self.removed(widths))

        widths = self.dense
        while self.removed(widths) < percent and (after := list(candidates(widths))):
            widths = min(after, key=price)
            yield widths


def _less(values: tuple[int, ...], at: int, by: int) -> tuple[int, ...]:
    return (*values[:at], values[at] - by, *values[at + 1 :])


def at_shares(mixture: Mixture, states: Iterable[Widths]) -> dict[int, Widths]:
    """The first state at or beyond each share."""
    reached: dict[int, Widths] = {}
    for state in states:
        for share in SHARES:
            if mixture.removed(state) >= share:
                reached.setdefault(share, state)
    return reached


def after(mixture: Mixture, *parts: tuple[float, Candidates]) -> dict[int, Widths]:
    """What is left at each share, one thing after the other, each up to a part of the share."""
    reached = {}
    for share in SHARES:
        state = mixture.dense
        for part, candidates in parts:
            *_, state = state, *mixture.lose(state, part * share, candidates)
        if mixture.removed(state) >= share:
            reached[share] = state
    return reached


def ways(mixture: Mixture, group: int) -> Iterator[tuple[str, dict[int, Widths]]]:
    """What goes, and what is left at each share."""
    dense, most, experts = mixture.dense, max(SHARES), mixture.experts
    inside = mixture.channels(group)

    def either(widths: Widths) -> Iterator[Widths]:
        yield from experts(widths)
        yield from inside(widths)

    yield "experts", at_shares(mixture, mixture.lose(dense, most, experts))
    yield "channels", at_shares(mixture, mixture.lose(dense, most, inside))
    yield "experts to 50%, then channels", after(mixture, (0.5, experts), (1, inside))
    yield "experts to 75%, then channels", after(mixture, (0.75, experts), (1, inside))
    yield "channels to 50%, then experts", after(mixture, (0.5, inside), (1, experts))
    yield "either, by parameter", at_shares(mixture, mixture.lose_by_parameter(most, either))
    yield (
        "a whole mixture, then experts",
        after(mixture, (0.25, mixture.mixtures), (1, experts)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--group", type=int, default=12, help="channels of all experts at a time")
    parser.add_argument("--windows", type=int, default=16, help="of calibration text")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        calibration = windows(tokenizer, "calibration")[: arguments.windows]
        heldout = windows(tokenizer, "heldout")
        mixture = Mixture(folder, calibration)
        dense = mixture.perplexity(mixture.dense, heldout)
        print(f"{folder}: {mixture.total:,} parameters, held-out perplexity {dense:.2f}")
        mixture.order()
        for name, states in ways(mixture, arguments.group):
            cells = [
                f"{mixture.removed(state):.1f}: {mixture.perplexity(state, heldout):.2f} "
                f"({mixture.active(state):.0f})"
                for state in states.values()
            ]
            print(f"{name:36}", " | ".join(cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
