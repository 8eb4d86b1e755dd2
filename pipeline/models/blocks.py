"""A residual block as a module: run whole, run with fewer channels, or cut for good."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.errors import ConfigError
from pipeline.models.families.base import (
    AnyChannels,
    AnyDescription,
    Experts,
    Inside,
    Projection,
    Segment,
)
from pipeline.models.offload import Offloaded
from pipeline.pruning.shape import BLOCK_NAMES, BlockKind, BlockShape, Mixture
from pipeline.pruning.units import Cut

Context = dict[str, Any]
"""What the decoder hands to a layer: masks, rotary embeddings, cache."""


class Block(nn.Module):
    """``x + m norm_after(body(norm_before(x)))`` for one attention or MLP of one layer.

    ``width`` counts query channels (attention), intermediate channels (MLP) or experts (mixture).
    """

    def __init__(
        self,
        kind: BlockKind,
        layer: int,
        decoder_layer: nn.Module,
        description: AnyDescription,
    ) -> None:
        super().__init__()
        self.kind, self.layer = kind, layer
        self.layout, self.multiplier = description.layout, description.multiplier
        self.channels: AnyChannels = description.channels
        self.width = self.channels.width
        self.inside: int | None = None
        """Channels of each expert of a mixture; None where it is none."""
        if isinstance(self.channels, Experts):
            self.inside = self.channels.expert_width
        self._best_inside: Tensor | None = None
        layout = self.layout
        self.offloaded: Offloaded | None = None
        self.recomputes = False
        """Whether it runs once more for its gradients, in the place of keeping activations."""
        self.means: Tensor | None = None
        """What each channel is on average, where biases make up for what is cut; ``[width]``."""
        self.body = decoder_layer.get_submodule(layout.body)
        self.norm_before, self.norm_after = (
            decoder_layer.get_submodule(name) if name else nn.Identity()
            for name in (layout.norm_before, layout.norm_after)
        )
        if any(count.name.startswith("config.") for count in layout.head_counts):
            setattr(self.body, "config", _OwnCounts(self.body.config))  # noqa: B010 - no module
        self._check_widths()

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """Hidden states ``[batch, tokens, hidden]`` after this block."""
        if self.recomputes and torch.is_grad_enabled():
            added: Tensor = checkpoint(self.residual, hidden, context, use_reentrant=False)
            return hidden + added
        return hidden + self.residual(hidden, context)

    def residual(self, hidden: Tensor, context: Context, cut: Cut | None = None) -> Tensor:
        """What this block adds to the hidden states ``[batch, tokens, hidden]``.

        ``context`` is what the decoder gives to the layer (masks, rotary embeddings, cache). With
        ``cut`` the block runs as if that had become of it.
        """
        if self.offloaded:
            self.offloaded.bring()
        arguments = (self.norm_before(hidden),)
        keywords = context if self.kind == "attn" else {}
        if cut is None:
            out = self.body(*arguments, **keywords)
        else:
            width = cut.width_after
            narrowed = self._narrowed_inside(width) if cut.is_inside else self._narrowed(width)
            with self._counting(self.width if cut.is_inside else width):
                out = torch.func.functional_call(self.body, narrowed, arguments, keywords)
        if self.kind == "attn":
            out = out[0]
        added: Tensor = self.norm_after(out)
        return added if self.multiplier == 1 else added * self.multiplier

    @torch.no_grad()
    def cut(self, width: int) -> None:
        """Keep the first ``width`` channels for good, in contiguous memory of their own."""
        if self.offloaded:
            self.offloaded.put_back()
        if self.means is not None:
            self._make_up(width)
        self._replace(self._narrowed(width))
        if self._best_inside is not None:
            self._best_inside = self._best_inside[:width]
        for projection in self.layout.projections:
            linear = self._linear(projection)
            linear.out_features, linear.in_features = linear.weight.shape
        self.width = width
        self._count_heads(width)
        if self.offloaded:
            self.offloaded.keep(self.parameters())

    @torch.no_grad()
    def cut_inside(self, width: int) -> None:
        """Keep the ``width`` most important channels of each expert of a mixture for good."""
        self.best_inside()  # on the device
        if self.offloaded:
            self.offloaded.put_back()
        self._replace(self._narrowed_inside(width))
        best = self.best_inside()[:, :width]
        self._best_inside = torch.arange(width, device=best.device).expand_as(best)
        self.inside = width
        if self.offloaded:
            self.offloaded.keep(self.parameters())

    def _replace(self, narrowed: Mapping[str, Tensor]) -> None:
        """Put parameters in the place of those of the body that have their names."""
        for name, tensor in narrowed.items():
            owner, _, attribute = name.rpartition(".")
            parameter = nn.Parameter(tensor.clone(memory_format=torch.contiguous_format), False)
            setattr(self.body.get_submodule(owner), attribute, parameter)

    def _make_up(self, width: int) -> None:
        """Add what the channels from ``width`` on give on average to the output layer's bias."""
        output, means = self.output, self.means
        assert means is not None
        removed = output.weight[:, width:].float() @ means[width:].to(output.weight.device)
        bias = (output.bias.float() + removed).to(output.bias.dtype)
        output.bias = nn.Parameter(bias, requires_grad=False)
        self.means = means[:width]

    @torch.no_grad()
    def add_biases(self, means: Sequence[float]) -> None:
        """Give every linear layer a bias; what is cut from now on is made up for by the last one's.

        ``means`` has what each channel is on average, ``[width]``. The biases are zeros where there
        were none.
        """
        if self.offloaded:
            self.offloaded.put_back()
        for projection in self.layout.projections:
            linear = self._linear(projection)
            if linear.bias is None:
                zeros = linear.weight.new_zeros(linear.out_features)
                linear.bias = nn.Parameter(zeros, requires_grad=False)
        self.means = torch.tensor(means, dtype=torch.float32)
        if self.offloaded:
            self.offloaded.keep(self.parameters())

    @property
    def name(self) -> str:
        """What it is called in files, e.g. ``attn.3``."""
        return f"{self.kind}.{self.layer}"

    @property
    def groups(self) -> int:
        """Groups of channels, each the least that can go: MLP channels, or key/value heads."""
        return self.width // self.channels.group_width

    @property
    def is_mixture(self) -> bool:
        """Whether it is a mixture of experts: it has no layer that all tokens' channels enter."""
        return isinstance(self.channels, Experts)

    @property
    def working_width(self) -> int:
        """Channels that a token takes while it passes the block."""
        if isinstance(self.channels, Experts) and self.inside is not None:
            return self.channels.working_width(self.inside)
        return self.width

    @property
    def expert_entries(self) -> int:
        """Entries of a mixture's parameters that one token is multiplied with; 0 of others."""
        if not isinstance(self.channels, Experts):
            return 0
        chosen = self.channels.experts_per_token
        return sum(
            (tensor[:chosen] if segments == ("expert",) else tensor).numel()
            for _, tensor, _, segments in self._cut_parameters()
        )

    @property
    def linears(self) -> list[nn.Linear]:
        """The linear layers that its channels go through."""
        return [self._linear(projection) for projection in self.layout.projections]

    @property
    def output(self) -> nn.Linear:
        """The linear layer that gives what the block adds; its inputs are the block's channels."""
        (projection,) = (each for each in self.layout.projections if each.columns)
        return self._linear(projection)

    @property
    def output_parameters(self) -> list[nn.Parameter]:
        """What the block adds is a product with the first, and a sum with the second if any."""
        if self.is_mixture:
            named = (vector.name for vector in self.layout.vectors if vector.is_output)
            return [self.body.get_parameter(name) for name in named]
        return list(self.output.parameters())

    @contextmanager
    def observed(self, observe: Callable[[Tensor], object]) -> Iterator[None]:
        """Whenever the block runs meanwhile, tell what enters its output layer."""

        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            observe(inputs[0])  # what a hook returns would take the inputs' place

        handle = self.output.register_forward_pre_hook(see)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def routed(self, observe: Callable[[Tensor, Tensor], object]) -> Iterator[None]:
        """Whenever the mixture runs meanwhile, tell which experts each token takes.

        ``observe`` gets the experts and what each of them counts, both ``[tokens, taken]``.
        """

        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            observe(inputs[1], inputs[2])  # what a hook returns would take the inputs' place

        (output,) = (vector.name for vector in self.layout.vectors if vector.is_output)
        experts = self.body.get_submodule(output.rpartition(".")[0])
        handle = experts.register_forward_pre_hook(see)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def expert_norms(self) -> Tensor:
        """The L1 norm of all weights of each expert of a mixture, float32 ``[experts]``."""
        if self.offloaded:
            self.offloaded.bring()
        norms = torch.zeros(self.groups, device=next(self.body.parameters()).device)
        for _, tensor, _, segments in self._cut_parameters():
            if segments == ("expert",):
                norms += torch.stack([each.float().abs().sum() for each in tensor])
        return norms

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """The L1 norms by which MultiPruner orders groups, float32 ``[groups]``.

        An MLP channel counts its rows of gate and up. A key/value group counts its query rows, and
        its key and value rows once per query head. Sums are taken in float32, on the device also
        where the weights are offloaded: the same order comes out.
        """
        if self.offloaded:
            self.offloaded.bring()
        norms = torch.zeros(self.groups, device=next(self.body.parameters()).device)
        for projection in self.layout.projections:
            weight = self._linear(projection).weight
            for segment, rows in self._split(weight, 0, projection.rows, self.width):
                of_rows = rows.float().abs().sum(dim=1).view(self.groups, -1).sum(dim=1)
                norms += of_rows * self.channels.uses(segment)
        return norms

    @torch.no_grad()
    def group_sums(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``of`` makes of each weight, added up over all weights of a group.

        ``of`` gives a tensor like the weight that it is given; float32 ``[groups]``.
        """
        if self.offloaded:
            self.offloaded.bring()
        sums = torch.zeros(self.groups, device=next(self.body.parameters()).device)
        for projection in self.layout.projections:
            dim, segments = (1, projection.columns) if projection.columns else (0, projection.rows)
            values = of(self._linear(projection).weight)
            for _, part in self._split(values, dim, segments, self.width):
                sums += part.float().sum(dim=1 - dim).view(self.groups, -1).sum(dim=1)
        return sums

    @torch.no_grad()
    def reorder(self, places: Sequence[int] | None = None) -> None:
        """Permute groups of channels: ``places`` says where each stood; None: by ``row_norms``."""
        if self.offloaded:
            self.offloaded.bring()
        groups = self.groups
        if places is None:
            order = torch.argsort(self.row_norms(), descending=True, stable=True)
        else:
            order = torch.tensor(places, device=next(self.body.parameters()).device)
        for _, tensor, dim, segments in self._cut_parameters():
            parts = [
                part.unflatten(dim, (groups, -1)).index_select(dim, order).flatten(dim, dim + 1)
                for _, part in self._split(tensor, dim, segments, self.width)
            ]
            tensor.copy_(torch.cat(parts, dim))
        self._best_inside = None
        if self.offloaded:
            self.offloaded.keep(self.parameters())

    def shape(self) -> BlockShape:
        """Widths and parameter counts of the block as it is."""
        params = sum(p.numel() for p in self.body.parameters())
        shrinking = sum(tensor.numel() for _, tensor, _, _ in self._cut_parameters())
        mixture = None
        if isinstance(self.channels, Experts):
            of_experts = sum(
                tensor.numel() for _, tensor, _, segments in self._cut_parameters()
                if "expert" in segments
            )  # fmt: skip
            channels = self.channels
            of_one = of_experts // self.width
            mixture = Mixture(channels.experts_per_token, of_one, channels.expert_width)
        fixed = params - shrinking
        return BlockShape(self.width, self.channels.group_width, params, fixed, mixture)

    def _check_widths(self) -> None:
        """Raise ``ConfigError`` where the modules are not as wide as the configuration says."""
        for name, tensor, dim, segments in self._cut_parameters():
            expected = sum(self.channels.segment_length(s, self.width) for s in segments)
            if tensor.shape[dim] != expected:
                raise ConfigError(
                    [
                        f"model.path: {name.rpartition('.')[0]} in the {BLOCK_NAMES[self.kind]} of "
                        f"layer {self.layer} has {tensor.shape[dim]} "
                        f"{'experts' if self.is_mixture else 'channels'} where the configuration "
                        f"says {expected}"
                    ]
                )

    def _linear(self, projection: Projection) -> nn.Linear:
        linear = self.body.get_submodule(projection.name)
        assert isinstance(linear, nn.Linear)
        return linear

    def padded(self, width: int, inside: int | None = None) -> dict[str, Tensor]:
        """What differs of the body in a block of ``width`` channels, the new ones all zeros.

        Adds to the hidden states what this block adds: heads without values and channels that do
        not reach the output. ``inside``: of a mixture each expert has so many.
        """
        if self.offloaded:
            self.offloaded.bring()
        resized = self._resized(width, _with_zeros)
        if inside is not None:
            for name, tensor, where in self._parameters_inside():
                runs = _runs(resized.get(name, tensor), where)
                resized[name] = _joined(_with_zeros(runs, where.dim + 1, inside), where)
        return resized

    def _narrowed(self, width: int) -> dict[str, Tensor]:
        """The body's parameters cut to ``width`` channels: views where a segment stands alone."""
        return self._resized(width, _beginning)

    @torch.no_grad()
    def _narrowed_inside(self, width: int) -> dict[str, Tensor]:
        """The parameters of a mixture whose experts keep their ``width`` most important channels.

        These come first, the most important one at the beginning.
        """
        best = self.best_inside()[:, :width]
        shrinking = self._parameters_inside()
        return {name: _picked(tensor, where, best) for name, tensor, where in shrinking}

    @torch.no_grad()
    def best_inside(self) -> Tensor:
        """Each expert's channels, the most important first, int64 ``[experts, channels]``.

        By the L1 norms of their rows of all but the output layer, in float32; of equal ones the
        first.
        """
        if self._best_inside is None:
            if self.offloaded:
                self.offloaded.bring()
            outputs = {vector.name for vector in self.layout.vectors if vector.is_output}
            norms = torch.zeros((), device=next(self.body.parameters()).device)
            for name, tensor, where in self._parameters_inside():
                if name not in outputs:
                    norms = norms + torch.stack([
                        _runs(each[None], where).float().abs().transpose(1, where.dim + 1)
                        .flatten(2).sum(dim=2)[0] for each in tensor
                    ])  # fmt: skip
            self._best_inside = norms.argsort(dim=1, descending=True, stable=True)
        return self._best_inside

    def _parameters_inside(self) -> Iterator[tuple[str, Tensor, Inside]]:
        """What shrinks where experts lose channels, by its name, with where it has them."""
        for vector in self.layout.vectors:
            if vector.inside:
                yield vector.name, self.body.get_parameter(vector.name), vector.inside

    def _resized(self, width: int, fit: Callable[[Tensor, int, int], Tensor]) -> dict[str, Tensor]:
        """The parameters that differ in a block of ``width`` channels.

        ``fit`` makes each segment as long as it then is, given a part, its dimension and length.
        """
        resized = {}
        for name, tensor, dim, segments in self._cut_parameters():
            parts = [
                fit(part, dim, self.channels.segment_length(segment, width))
                for segment, part in self._split(tensor, dim, segments, self.width)
            ]
            resized[name] = parts[0] if len(parts) == 1 else torch.cat(parts, dim)
        return resized

    def _cut_parameters(self) -> Iterator[tuple[str, Tensor, int, Sequence[Segment]]]:
        """What shrinks, by its name in the body, with the dimension and its segments."""
        for projection in self.layout.projections:
            linear = self._linear(projection)
            dim, segments = (1, projection.columns) if projection.columns else (0, projection.rows)
            yield f"{projection.name}.weight", linear.weight, dim, segments
            if linear.bias is not None and projection.rows:
                yield f"{projection.name}.bias", linear.bias, 0, projection.rows
        for vector in self.layout.vectors:
            yield vector.name, self.body.get_parameter(vector.name), 0, (vector.segment,)

    def _count_heads(self, width: int) -> None:
        """Tell the body how many heads or experts it has with this width, where it asks."""
        for each in self.layout.head_counts:
            owner, _, name = each.name.rpartition(".")
            count = self.channels.count(each.segment, width)
            setattr(attrgetter(owner)(self.body) if owner else self.body, name, count)

    @contextmanager
    def _counting(self, width: int) -> Iterator[None]:
        """With as many heads as ``width`` channels have."""
        self._count_heads(width)
        try:
            yield
        finally:
            self._count_heads(self.width)

    def _split(
        self, tensor: Tensor, dim: int, segments: Sequence[Segment], width: int
    ) -> list[tuple[Segment, Tensor]]:
        lengths = [self.channels.segment_length(segment, width) for segment in segments]
        return list(zip(segments, tensor.split(lengths, dim), strict=True)) if segments else []


def _runs(tensor: Tensor, where: Inside) -> Tensor:
    """With a dimension for the runs of channels, before that of the channels."""
    runs: Tensor = tensor.unflatten(where.dim, (where.runs, -1))
    return runs


def _joined(runs: Tensor, where: Inside) -> Tensor:
    """The inverse of ``_runs``."""
    return runs.flatten(where.dim, where.dim + 1)


def _picked(tensor: Tensor, where: Inside, places: Tensor) -> Tensor:
    """Of each expert some channels, ``[experts, channels]``."""
    runs, at = _runs(tensor, where), where.dim + 1
    shape = [1] * runs.ndim
    shape[0], shape[at] = places.shape
    index = places.to(tensor.device).view(shape).expand(*runs.shape[:at], -1, *runs.shape[at + 1 :])
    return _joined(runs.gather(at, index), where)


def _beginning(part: Tensor, dim: int, length: int) -> Tensor:
    return part.narrow(dim, 0, length)


def _with_zeros(part: Tensor, dim: int, length: int) -> Tensor:
    missing = list(part.shape)
    missing[dim] = length - part.shape[dim]
    return torch.cat([part, part.new_zeros(missing)], dim)


class _OwnCounts:
    """A configuration with numbers of heads of its own; all else is as the shared one says."""

    def __init__(self, shared: Any) -> None:
        self.shared = shared

    def __getattr__(self, name: str) -> Any:
        if name == "shared" or name.startswith("__"):  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.shared, name)
