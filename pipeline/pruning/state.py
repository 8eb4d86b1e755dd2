"""The pruning state of a model: which blocks are gone and how wide the others are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import ConfigError
from pipeline.pruning.units import BlockKind, Candidate, Cut, Unit


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One attention or MLP block of the dense model, without the layer norms around it."""

    width: int
    """Query channels (heads x head_dim) of an attention, intermediate channels of an MLP."""
    granule: int
    """The fewest channels that can go: those of one key/value head's query heads; 1 for an MLP."""
    params: int
    """Parameters of the whole block."""
    fixed_params: int
    """Those that do not depend on the width: biases of the output, norms of queries and keys."""

    def params_at(self, width: int) -> int:
        """Parameters of the block cut to ``width`` channels."""
        return self.fixed_params + (self.params - self.fixed_params) * width // self.width


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What must be known of a dense model to count its parameters in any state."""

    layers: int
    attn: BlockShape
    mlp: BlockShape
    total_params: int
    """All parameters, embeddings and norms included, a tied embedding once."""


@dataclass(frozen=True, slots=True)
class PruningState:
    """Immutable. ``removed_*`` keep the order of removal; a removed block keeps its width."""

    shape: ModelShape
    removed_attn: tuple[int, ...]
    removed_mlp: tuple[int, ...]
    attn_widths: tuple[int, ...]
    mlp_widths: tuple[int, ...]

    @classmethod
    def dense(cls, shape: ModelShape) -> "PruningState":
        """Nothing removed, every block at full width."""
        return cls(
            shape, (), (), (shape.attn.width,) * shape.layers, (shape.mlp.width,) * shape.layers
        )

    @property
    def params(self) -> int:
        """Parameters left. Layer norms stay in the count, as in the reference."""
        shape = self.shape
        attn = (shape.attn.params_at(w) for w in _kept(self.attn_widths, self.removed_attn))
        mlp = (shape.mlp.params_at(w) for w in _kept(self.mlp_widths, self.removed_mlp))
        outside = shape.total_params - shape.layers * (shape.attn.params + shape.mlp.params)
        return outside + sum(attn) + sum(mlp)

    @property
    def ratio_percent(self) -> float:
        """Removed parameters, in percent of all parameters of the dense model."""
        return (self.shape.total_params - self.params) / self.shape.total_params * 100

    def widths(self, kind: BlockKind) -> tuple[int, ...]:
        """Width of each layer's attention or MLP; a removed block keeps the one it had."""
        return self.attn_widths if kind == "attn" else self.mlp_widths

    def left(self, kind: BlockKind) -> list[int]:
        """The layers whose attention or MLP is still there."""
        removed = self.removed_attn if kind == "attn" else self.removed_mlp
        return [layer for layer in range(self.shape.layers) if layer not in removed]

    def candidates(self, units: Sequence[Unit], group_size: int | None) -> list[Candidate]:
        """Everything of these units that could go next, in the order that decides ties.

        ``group_size`` is in channels and has no meaning for what goes as a whole.
        """
        return [candidate for unit in units for candidate in self._candidates_of(unit, group_size)]

    def _candidates_of(self, unit: Unit, group_size: int | None) -> list[Candidate]:
        if unit.is_whole:
            layers = {layer for kind in unit.kinds for layer in self.left(kind)}
            return [Candidate(unit, layer, 0) for layer in sorted(layers)]
        assert group_size
        (kind,) = unit.kinds
        widths = self.widths(kind)
        return [
            Candidate(unit, layer, widths[layer] - group_size)
            for layer in self.left(kind)
            if widths[layer] > group_size
        ]

    def without(self, candidate: Candidate) -> "PruningState":
        """The state after ``candidate`` went."""
        state = self
        for cut in candidate.cuts:
            state = state._after(cut)
        return state

    def _after(self, cut: Cut) -> "PruningState":
        """With one block gone or narrower; the same where it is gone already."""
        if cut.layer not in self.left(cut.kind):
            return self
        is_attention = cut.kind == "attn"
        if cut.width_after == 0 and is_attention:
            return replace(self, removed_attn=(*self.removed_attn, cut.layer))
        if cut.width_after == 0:
            return replace(self, removed_mlp=(*self.removed_mlp, cut.layer))
        widths = self.widths(cut.kind)
        widths = (*widths[: cut.layer], cut.width_after, *widths[cut.layer + 1 :])
        return (
            replace(self, attn_widths=widths) if is_attention else replace(self, mlp_widths=widths)
        )

    def can_become(self, later: "PruningState") -> bool:
        """Whether ``later`` is reached from here by removals alone."""
        pairs = zip(
            (*self.attn_widths, *self.mlp_widths),
            (*later.attn_widths, *later.mlp_widths),
            strict=True,
        )
        return (
            set(self.removed_attn) <= set(later.removed_attn)
            and set(self.removed_mlp) <= set(later.removed_mlp)
            and all(now >= then for now, then in pairs)
        )

    def identity(self) -> dict[str, Any]:
        """Plain JSON that is equal for equal live models: the order of removal does not count."""
        return {
            "removed_attn": sorted(self.removed_attn),
            "removed_mlp": sorted(self.removed_mlp),
            "attn_widths": list(self.attn_widths),
            "mlp_widths": list(self.mlp_widths),
        }

    def to_pruning_config(self) -> dict[str, Any]:
        """The reference's ``pruning_config.json``; widths in channels, every layer listed."""
        return {
            "pruned_attn_idx": list(self.removed_attn),
            "pruned_mlp_idx": list(self.removed_mlp),
            "pruned_attn_width": {str(i): w for i, w in enumerate(self.attn_widths)},
            "pruned_mlp_width": {str(i): w for i, w in enumerate(self.mlp_widths)},
        }

    @classmethod
    def from_pruning_config(cls, shape: ModelShape, config: Any) -> "PruningState":
        """Read the reference's ``pruning_config.json``.

        Raises ``ConfigError`` that names everything in it that does not fit ``shape``.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(["pruning_config.json: is not an object"])
        known = set(cls.dense(shape).to_pruning_config())
        problems = [f"{key}: no such key" for key in config if key not in known]
        removed = {
            key: _read_indices(key, config.get(key), shape.layers, problems)
            for key in ("pruned_attn_idx", "pruned_mlp_idx")
        }
        widths = {
            key: _read_widths(key, config.get(key), shape.layers, block, problems)
            for key, block in (("pruned_attn_width", shape.attn), ("pruned_mlp_width", shape.mlp))
        }
        if problems:
            raise ConfigError(problems)
        return cls(
            shape,
            removed["pruned_attn_idx"],
            removed["pruned_mlp_idx"],
            widths["pruned_attn_width"],
            widths["pruned_mlp_width"],
        )


def _kept(widths: Sequence[int], removed: Sequence[int]) -> Iterable[int]:
    return (width for layer, width in enumerate(widths) if layer not in removed)


def _read_indices(key: str, value: Any, layers: int, problems: list[str]) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(i) is int for i in value):
        problems.append(f"{key}: {value!r} is not a list of layer numbers")
        return ()
    if bad := [i for i in value if not 0 <= i < layers]:
        problems.append(f"{key}: layers {bad} do not exist; the model has layers 0 to {layers - 1}")
    if len(set(value)) < len(value):
        problems.append(f"{key}: {value} names a layer twice")
    return tuple(value)


def _is_index(key: Any) -> bool:
    return str(key).isdecimal() and str(int(key)) == str(key)


def _read_widths(
    key: str, value: Any, layers: int, block: BlockShape, problems: list[str]
) -> tuple[int, ...]:
    if not isinstance(value, Mapping) or not all(_is_index(k) for k in value):
        problems.append(f"{key}: not an object from layer number to width")
        return ()
    widths = {int(k): w for k, w in value.items()}
    first = min(widths, default=0)
    if first > 0 and sorted(widths) == list(range(first, first + layers)):
        problems.append(
            f"{key}: its keys run from {first} to {first + layers - 1} instead of 0 to "
            f"{layers - 1} (some published files are shifted so); subtract {first} from every key"
        )
        return ()
    if sorted(widths) != list(range(layers)):
        problems.append(
            f"{key}: must list every layer from 0 to {layers - 1}; it lists {sorted(widths)}"
        )
        return ()
    for layer, width in sorted(widths.items()):
        if type(width) is not int or not 0 < width <= block.width or width % block.granule:
            problems.append(
                f"{key}: layer {layer} has {width!r}; allowed is a multiple of {block.granule} "
                f"from {block.granule} to {block.width}"
            )
    return tuple(widths[i] for i in range(layers))
