"""One pass of the dense model over calibration text, and what it says of every piece."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.models.prunable import PrunableModel
from pipeline.scoring.kernels import fast_kernels
from pipeline.scoring.perplexity import Windows


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of pieces of the dense model, by ``PIECE.NAME``, on the CPU.

    A piece is a block (``attn.3``, ``mlp.3``) or a layer (``layer.3``). With x its input and x + f
    its output in the stream of hidden states, each has, float64 and without dimensions:

    - ``influence``: 1 - cos(x, x + f), the mean over tokens;
    - ``relative_magnitude``: the norm of f over that of x + f, the mean over tokens.

    A block that is no mixture of experts has of the inputs of its output layer, which are its
    channels, float32 ``[width]``:

    - ``mean`` and ``variance`` over tokens;
    - ``norm``: the L2 norm over all tokens;
    - ``window_norm``: the L2 norm over the tokens of a window, the mean over windows.

    A mixture has of its experts, float32 ``[experts]``:

    - ``router_mass``: what each counts in what the mixture adds, the sum over all tokens.
    """

    values: Mapping[str, Tensor]

    def of(self, piece: str, name: str) -> Tensor:
        """One of the numbers."""
        return self.values[f"{piece}.{name}"]


@torch.no_grad()
def collect(
    model: PrunableModel,
    windows: Windows,
    rows: int,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Statistics:
    """Statistics of a dense model; ``rows`` windows go through a block at a time.

    ``on_progress`` is called with the share that was done since the last call.

    All windows pass a block before the next one: its weights are needed once. The hidden states of
    all windows are in memory meanwhile.
    """
    ids = windows.ids.to(model.device)
    contexts = model.decoder_input(ids[:1]).contexts  # windows are full: all have the same
    hidden = model.decoder_input(ids).hidden
    values: dict[str, Tensor] = {}
    blocks = list(zip(model.blocks, contexts, strict=True))
    with fast_kernels(model):
        for layer, of_layer in groupby(blocks, key=lambda pair: pair[0].layer):
            entered, layer_flow = hidden.clone(), _Flow()
            for block, context in of_layer:
                flow = _Flow()
                inside: _Columns | _Routes
                if block.is_mixture:
                    inside = _Routes(block.width, model.device)
                    observed = block.routed(inside.add)
                else:
                    inside = _Columns(block.output.in_features, model.device)
                    observed = block.observed(inside.add)
                with observed:
                    for part in hidden.split(rows):
                        before = part.clone()
                        part.add_(block.residual(part, context))
                        flow.add(before, part)
                values |= flow.values(block.name) | inside.values(block.name)
                on_progress(1 / len(blocks))
            for before, after in zip(entered.split(rows), hidden.split(rows), strict=True):
                layer_flow.add(before, after)
            values |= layer_flow.values(f"layer.{layer}")
    return Statistics(values)


@dataclass
class _Flow:
    """What a piece does to the hidden states."""

    tokens: int = 0
    influence: float = 0.0
    magnitude: float = 0.0

    def add(self, before: Tensor, after: Tensor) -> None:
        """Hidden states ``[windows, tokens, hidden]`` that entered and left it."""
        for x, y in zip(before.float(), after.float(), strict=True):
            self.tokens += len(x)
            self.influence += (1 - cosine_similarity(x, y, dim=-1)).double().sum().item()
            share = (y - x).norm(dim=-1) / y.norm(dim=-1)
            self.magnitude += share.nan_to_num().double().sum().item()

    def values(self, piece: str) -> dict[str, Tensor]:
        means = {"influence": self.influence, "relative_magnitude": self.magnitude}
        return {
            f"{piece}.{name}": torch.tensor(total / self.tokens, dtype=torch.float64)
            for name, total in means.items()
        }


class _Routes:
    """What a mixture's experts count, float64 ``[experts]``."""

    def __init__(self, experts: int, device: torch.device) -> None:
        self.mass = torch.zeros(experts, dtype=torch.float64, device=device)

    def add(self, taken: Tensor, counts: Tensor) -> None:
        """The experts of each token and what each counts, both ``[tokens, taken]``."""
        self.mass.index_add_(0, taken.flatten(), counts.flatten().double())

    def values(self, piece: str) -> dict[str, Tensor]:
        """As ``Statistics`` has them."""
        return {f"{piece}.router_mass": self.mass.float().cpu()}


class _Columns:
    """Sums over the inputs of a block's output layer, float64 ``[width]``."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.tokens = self.windows = 0
        self.mean, self.squared_deviations, self.squares, self.window_norms = torch.zeros(
            4, width, dtype=torch.float64, device=device
        )

    def add(self, inputs: Tensor) -> None:
        """Inputs ``[windows, tokens, width]``. Variances are merged as by Chan et al. (1979)."""
        for window in inputs.float():
            before, count = self.tokens, len(window)
            self.tokens, self.windows = before + count, self.windows + 1
            mean, squares = window.mean(dim=0), window.square().sum(dim=0).double()
            within = (window - mean).square().sum(dim=0).double()
            moved = mean.double() - self.mean
            self.mean += moved * (count / self.tokens)
            self.squared_deviations += within + moved.square() * (before * count / self.tokens)
            self.squares += squares
            self.window_norms += squares.sqrt()

    def values(self, piece: str) -> dict[str, Tensor]:
        """As ``Statistics`` has them."""
        values = {
            "mean": self.mean,
            "variance": self.squared_deviations / max(self.tokens - 1, 1),
            "norm": self.squares.sqrt(),
            "window_norm": self.window_norms / self.windows,
        }
        return {f"{piece}.{name}": each.float().cpu() for name, each in values.items()}
