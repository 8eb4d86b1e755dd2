"""The pruning state of a model: which blocks are gone and how wide the others are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import ConfigError
from pipeline.pruning.shape import (
    BLOCK_KINDS,
    BLOCK_NAMES,
    EXPERTS_NAME,
    INSIDE_NAME,
    BlockKind,
    BlockShape,
    ModelShape,
)
from pipeline.pruning.units import EXPERT_WIDTH, UNITS, Candidate, Cut, Unit

ExpertOrder = Mapping[int, Sequence[int]]
"""By the layer of a mixture the place that each of its experts has in the dense model."""
GONE_EXPERTS, WIDTHS_INSIDE = "pruned_experts", "pruned_expert_width"


@dataclass(frozen=True, slots=True)
class PruningState:
    """Immutable. ``removed_*`` keep the order of removal; a removed block keeps its width."""

    shape: ModelShape
    removed_attn: tuple[int, ...]
    removed_mlp: tuple[int, ...]
    attn_widths: tuple[int, ...]
    mlp_widths: tuple[int, ...]
    expert_widths: tuple[int, ...] = ()
    """Channels of each expert of each layer's mixture; () where no expert lost any."""

    @classmethod
    def dense(cls, shape: ModelShape) -> "PruningState":
        """Nothing removed, every block at full width; 0 is the width of one that there is not."""
        return cls(shape, (), (), shape.widths("attn"), shape.widths("mlp"))

    def widths(self, kind: BlockKind) -> tuple[int, ...]:
        """Width of each layer's attention or MLP; a removed block keeps the one it had."""
        return self.attn_widths if kind == "attn" else self.mlp_widths

    def with_widths(self, kind: BlockKind, widths: Sequence[int]) -> "PruningState":
        """With other widths of each layer's attention or MLP."""
        if kind == "attn":
            return replace(self, attn_widths=tuple(widths))
        return replace(self, mlp_widths=tuple(widths))

    def removed(self, kind: BlockKind) -> tuple[int, ...]:
        """The layers whose attention or MLP is gone, in the order of removal."""
        return self.removed_attn if kind == "attn" else self.removed_mlp

    def with_removed(self, kind: BlockKind, layers: Sequence[int]) -> "PruningState":
        """With the attention or MLP of these layers gone, and of no others."""
        if kind == "attn":
            return replace(self, removed_attn=tuple(layers))
        return replace(self, removed_mlp=tuple(layers))

    def width(self, unit: Unit, layer: int) -> int:
        """How many a layer has of what a unit takes: channels, experts, or channels of each."""
        if unit == EXPERT_WIDTH:
            return self.inside[layer]
        (kind,) = unit.kinds
        return self.widths(kind)[layer]

    @property
    def inside(self) -> tuple[int, ...]:
        """Channels of each expert of each layer's mixture; 0 where it has none."""
        return self.expert_widths or self.shape.expert_widths

    def is_narrower(self, kind: BlockKind, layer: int) -> bool:
        """Whether an attention or MLP is narrower than in the dense model, in whatever way."""
        block = self.shape.block(kind, layer)
        return block is not None and any(
            self.width(UNITS[name], layer) < block.full(name) for name in block.units(kind)
        )

    def left(self, kind: BlockKind) -> list[int]:
        """The layers whose attention or MLP is still there."""
        removed = self.removed(kind)
        return [i for i, width in enumerate(self.widths(kind)) if width and i not in removed]

    @property
    def params(self) -> int:
        """Parameters left. Layer norms stay in the count, as in the reference."""
        kept = (block.params_at(width, inside) for block, width, inside in self._blocks_left())
        return self.shape.params_outside_blocks + sum(kept)

    @property
    def active_params(self) -> int:
        """Those of ``params`` that one token passes: of each mixture what the router takes."""
        kept = (
            block.active_params_at(width, inside) for block, width, inside in self._blocks_left()
        )
        return self.shape.params_outside_blocks + sum(kept)

    def _blocks_left(self) -> Iterator[tuple[BlockShape, int, int | None]]:
        """Each block that is still there, with its width, and that of its experts."""
        all_inside = self.inside
        for kind in BLOCK_KINDS:
            for layer in self.left(kind):
                if block := self.shape.block(kind, layer):
                    yield block, self.widths(kind)[layer], all_inside[layer] or None

    @property
    def ratio_percent(self) -> float:
        """Removed parameters, in percent of all parameters of the dense model."""
        return (self.shape.total_params - self.params) / self.shape.total_params * 100

    def candidates(self, units: Sequence[Unit], group_size: int | None) -> list[Candidate]:
        """Everything of these units that could go next, in the order that decides ties.

        ``group_size`` is in channels, or in experts, and has no meaning for what goes as a whole.
        What the model cannot lose is left out.
        """
        return [candidate for unit in units for candidate in self._candidates_of(unit, group_size)]

    def _candidates_of(self, unit: Unit, group_size: int | None) -> list[Candidate]:
        if any(self.shape.why_barred(name) for name in unit.parts):
            return []
        if unit.is_whole:
            layers = {layer for kind in unit.kinds for layer in self.left(kind)}
            return [Candidate(unit, layer, 0) for layer in sorted(layers)]
        assert group_size is not None
        (kind,) = unit.kinds
        return [
            Candidate(unit, layer, after)
            for layer in self.left(kind)
            if (block := self.shape.block(kind, layer))
            and unit.name in block.units(kind)
            and (after := self.width(unit, layer) - group_size) >= block.least(unit.name)
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
        if cut.width_after == 0:
            return self.with_removed(cut.kind, (*self.removed(cut.kind), cut.layer))
        before = self.inside if cut.is_inside else self.widths(cut.kind)
        widths = (*before[: cut.layer], cut.width_after, *before[cut.layer + 1 :])
        if cut.is_inside:
            return replace(self, expert_widths=widths)
        return self.with_widths(cut.kind, widths)

    def can_become(self, later: "PruningState") -> bool:
        """Whether ``later`` is reached from here by removals alone."""
        pairs = zip(
            (*self.attn_widths, *self.mlp_widths, *self.inside),
            (*later.attn_widths, *later.mlp_widths, *later.inside),
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
            **({"expert_widths": list(self.expert_widths)} if self.expert_widths else {}),
        }

    def live_identity(self) -> dict[str, Any]:
        """The same where the widths of blocks that are gone do not count either."""
        full = {kind: self.shape.widths(kind) for kind in BLOCK_KINDS}
        left = {kind: set(self.left(kind)) for kind in BLOCK_KINDS}
        attn, mlp = (
            tuple(w if i in left[kind] else full[kind][i] for i, w in enumerate(self.widths(kind)))
            for kind in BLOCK_KINDS
        )
        return replace(self, attn_widths=attn, mlp_widths=mlp).identity()

    def to_pruning_config(self, experts: ExpertOrder | None = None) -> dict[str, Any]:
        """The reference's ``pruning_config.json``; widths in channels, every layer listed.

        Of a model with mixtures also ``pruned_experts``: for each mixture the experts that went, by
        their places in the dense model, ascending; its width is the number of those that are left.
        Where experts lost channels, ``pruned_expert_width`` has those of each expert of a mixture.
        """
        config: dict[str, Any] = {
            "pruned_attn_idx": list(self.removed_attn),
            "pruned_mlp_idx": list(self.removed_mlp),
            "pruned_attn_width": {str(i): w for i, w in enumerate(self.attn_widths)},
            "pruned_mlp_width": {str(i): w for i, w in enumerate(self.mlp_widths)},
        }
        if self.shape.has_mixtures:
            config[GONE_EXPERTS] = {
                str(layer): _gone(experts, layer, block.width, self.mlp_widths[layer])
                for layer, block in self.shape.mixtures.items()
            }
        if self.expert_widths:
            config[WIDTHS_INSIDE] = {
                str(layer): self.expert_widths[layer] for layer in self.shape.mixtures
            }
        return config

    @classmethod
    def from_pruning_config(
        cls, shape: ModelShape, config: Any, experts: ExpertOrder | None = None
    ) -> "PruningState":
        """Read the reference's ``pruning_config.json``.

        With ``experts`` those that went must be the last ones in that order. Raises ``ConfigError``
        that names everything in it that does not fit ``shape``.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(["pruning_config.json: is not an object"])
        known = {*cls.dense(shape).to_pruning_config(), *([WIDTHS_INSIDE] * shape.has_mixtures)}
        problems = [f"{key}: no such key" for key in config if key not in known]
        removed = {
            kind: _read_indices(f"pruned_{kind}_idx", config, shape, kind, problems)
            for kind in BLOCK_KINDS
        }
        widths = {
            kind: _read_widths(f"pruned_{kind}_width", config, shape, kind, problems)
            for kind in BLOCK_KINDS
        }
        if shape.has_mixtures and not problems:
            problems += _wrong_experts(config.get(GONE_EXPERTS), shape, widths["mlp"], experts)
        inside = config.get(WIDTHS_INSIDE)
        if inside is not None and not problems:
            problems += _wrong_inside(inside, shape)
        if problems:
            raise ConfigError(problems)
        return cls(
            shape,
            removed["attn"],
            removed["mlp"],
            widths["attn"],
            widths["mlp"],
            () if inside is None else _for_layers(inside, shape),
        )


def _gone(experts: ExpertOrder | None, layer: int, count: int, left: int) -> list[int]:
    """The experts that a mixture of ``count`` lost, by their places in the dense model."""
    places = experts[layer] if experts else range(count)
    return sorted(places[left:])


def _wrong_experts(
    value: Any, shape: ModelShape, widths: Sequence[int], experts: ExpertOrder | None
) -> list[str]:
    """What is wrong with ``pruned_experts``."""
    mixtures = {str(layer): block for layer, block in shape.mixtures.items()}
    if not isinstance(value, Mapping) or value.keys() != mixtures.keys():
        return [
            f"{GONE_EXPERTS}: must be an object with a list of experts for each layer that has a "
            f"mixture: {', '.join(mixtures)}"
        ]
    problems = []
    for name, block in mixtures.items():
        gone, layer = value[name], int(name)
        wanted = _gone(experts, layer, block.width, widths[layer])
        if not isinstance(gone, list) or not all(type(i) is int for i in gone):
            problems.append(
                f"{GONE_EXPERTS}: layer {name} has {gone!r}; allowed is a list of experts"
            )
        elif len(set(gone) & set(range(block.width))) != len(gone) or len(gone) != len(wanted):
            problems.append(
                f"{GONE_EXPERTS}: layer {name} has {gone}; allowed are {len(wanted)} experts from "
                f"0 to {block.width - 1}, each once: pruned_mlp_width leaves {widths[layer]}"
            )
        elif experts and sorted(gone) != wanted:
            problems.append(
                f"{GONE_EXPERTS}: layer {name} has {gone}, and by the order of experts that goes "
                f"with it {wanted} went; put the channel_order.json of that run beside it"
            )
    return problems


def _wrong_inside(value: Any, shape: ModelShape) -> list[str]:
    """What is wrong with ``pruned_expert_width``."""
    mixtures = {str(layer): block.full(INSIDE_NAME) for layer, block in shape.mixtures.items()}
    if not isinstance(value, Mapping) or value.keys() != mixtures.keys():
        return [
            f"{WIDTHS_INSIDE}: must be an object with a width for each layer that has a mixture: "
            f"{', '.join(mixtures)}"
        ]
    return [
        f"{WIDTHS_INSIDE}: layer {layer} has {value[layer]!r}; allowed is a number from 1 to {full}"
        for layer, full in mixtures.items()
        if type(value[layer]) is not int or not 0 < value[layer] <= full
    ]


def _for_layers(inside: Mapping[str, int], shape: ModelShape) -> tuple[int, ...]:
    """The widths of experts by layer; none where all are whole."""
    widths = tuple(inside.get(str(layer), 0) for layer in range(len(shape.layers)))
    return () if widths == shape.expert_widths else widths


def _read_indices(
    key: str, config: Mapping[str, Any], shape: ModelShape, kind: BlockKind, problems: list[str]
) -> tuple[int, ...]:
    value, layers = config.get(key), len(shape.layers)
    if not isinstance(value, list) or not all(type(i) is int for i in value):
        problems.append(f"{key}: {value!r} is not a list of layer numbers")
        return ()
    if bad := [i for i in value if not 0 <= i < layers]:
        problems.append(f"{key}: layers {bad} do not exist; the model has layers 0 to {layers - 1}")
    if bad := [i for i in value if 0 <= i < layers and shape.block(kind, i) is None]:
        problems.append(f"{key}: layers {bad} of the model have no {BLOCK_NAMES[kind]}")
    if value and (why_barred := shape.why_barred(kind)):
        problems.append(f"{key}: {value} cannot be removed: {why_barred}")
    if len(set(value)) < len(value):
        problems.append(f"{key}: {value} names a layer twice")
    return tuple(value)


MOST_DIGITS = 6
"""Of a layer's number."""


def _is_index(key: Any) -> bool:
    text = str(key)
    return len(text) <= MOST_DIGITS and text.isdecimal() and str(int(text)) == text


def _read_widths(
    key: str, config: Mapping[str, Any], shape: ModelShape, kind: BlockKind, problems: list[str]
) -> tuple[int, ...]:
    value, layers = config.get(key), len(shape.layers)
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
        block = shape.block(kind, layer)
        problem = _width_problem(width, block, kind)
        why_barred = block and shape.why_barred(block.units(kind)[0])
        if not problem and why_barred and width != shape.widths(kind)[layer]:
            problem = f"allowed is {shape.widths(kind)[layer]}: {why_barred}"
        if problem:
            problems.append(f"{key}: layer {layer} has {width!r}; {problem}")
    return tuple(widths[i] for i in range(layers))


def _width_problem(width: Any, block: BlockShape | None, kind: BlockKind) -> str | None:
    """What is wrong with a width; None where it fits."""
    if block is None:
        wrong = type(width) is not int or width != 0
        return f"allowed is 0: the layer has no {BLOCK_NAMES[kind]}" if wrong else None
    group = block.group_width
    if block.mixture:
        least = block.least(EXPERTS_NAME)
        is_allowed = type(width) is int and least <= width <= block.width
        return None if is_allowed else f"allowed are {least} to {block.width} experts"
    if type(width) is not int or not 0 < width <= block.width or width % group:
        return f"allowed is a multiple of {group} from {group} to {block.width}"
    return None
