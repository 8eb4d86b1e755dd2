"""What is left of every layer: after every step of a run, and at the end of every run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.pruning.shape import (
    BLOCK_KINDS,
    BLOCK_NAMES,
    INSIDE_NAME,
    BlockKind,
    BlockShape,
    ModelShape,
)
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import EXPERT_WIDTH, Cut
from pipeline.report import colours
from pipeline.report.charts.base import Area, Cell, CellState, Key, LayerMap, Marker, Source
from pipeline.report.charts.sections import LAYERS, RUN_LAYERS
from pipeline.report.compare.comparison import Comparison
from pipeline.report.data import RunReport

CUT_NAMES: dict[BlockKind, str] = {"attn": "attention heads", "mlp": "MLP channels"}
EXPERTS = "experts, or channels in them,"
LOWEST_ROW, HIGHEST_ROW = 0.28, 0.6
"""Share of the height of the attention's row, however few or many parameters it has."""


def of_run(report: RunReport) -> Iterator[LayerMap]:
    """With the number of the step at which a block went."""
    yield LayerMap(
        section=LAYERS,
        title="",
        columns=len(report.shape.layers),
        rows=_rows(report.state),
        cells=tuple(
            Cell(row, layer, tuple(_states(report, kind, layer, shape)))
            for layer, row, kind, shape in _blocks(report.state)
        ),
        keys=_keys(
            report.shape, "kept (%: channels left)", "block removed, with its step", hatched=True
        ),
    )


def of_comparison(comparison: Comparison) -> Iterator[LayerMap]:
    """One map per run of which it is known what went, group by group."""
    for place, group in enumerate(comparison.groups):
        for run in group.runs:
            if run.pruning is None:
                continue
            stopped = "" if run.is_done else f", {run.state}"
            yield LayerMap(
                section=RUN_LAYERS,
                title=group.label,
                subtitle=f"{run.removed_percent or 0:.1f} %{stopped}",
                columns=len(run.pruning.shape.layers),
                rows=dict.fromkeys(BLOCK_NAMES.values(), 0.5),
                cells=tuple(
                    Cell(row, layer, (_end_state(run.pruning, kind, layer, shape),))
                    for layer, row, kind, shape in _blocks(run.pruning)
                ),
                compact=True,
                own_keys=(Key("", marker=Marker(colours.group(place), "square")),),
                keys=_keys(run.pruning.shape, "kept", "block removed", hatched=False),
            )


def _blocks(state: PruningState) -> Iterator[tuple[int, int, BlockKind, BlockShape]]:
    """Layer, row, kind and shape of every block, from the input on."""
    for layer, shapes in enumerate(state.shape.layers):
        for row, kind in enumerate(BLOCK_KINDS):
            if shape := shapes.block(kind):
                yield layer, row, kind, shape


def _rows(state: PruningState) -> dict[str, float]:
    """The more parameters a kind of block has, the higher its row."""
    attn, mlp = (state.shape.params(kind) for kind in BLOCK_KINDS)
    share = min(HIGHEST_ROW, max(LOWEST_ROW, attn / ((attn + mlp) or 1)))
    return {BLOCK_NAMES["attn"]: share, BLOCK_NAMES["mlp"]: 1 - share}


def _cut_name(shape: ModelShape, kind: BlockKind) -> str:
    """What narrower blocks of a kind lost, in words."""
    if kind == "attn" or not shape.has_mixtures:
        return CUT_NAMES[kind]
    mlps = [layer.mlp for layer in shape.layers if layer.mlp]
    return EXPERTS if all(mlp.mixture for mlp in mlps) else f"{CUT_NAMES[kind]}, {EXPERTS}"


def _keys(shape: ModelShape, kept: str, gone: str, *, hatched: bool) -> tuple[Key, ...]:
    solid = colours.tint(colours.GONE) if hatched else colours.GONE
    cuts = [
        Key(f"{_cut_name(shape, kind)} removed", area=Area(colours.tint(colour), colour, hatched))
        for kind, colour in ((kind, colours.kind(kind)) for kind in reversed(BLOCK_KINDS))
    ]
    grey = Area(colours.KEPT, colours.KEPT)
    return (Key(kept, area=grey), Key(gone, area=Area(solid, colours.GONE, hatched)), *cuts)


def _states(
    report: RunReport, kind: BlockKind, layer: int, shape: BlockShape
) -> Iterator[CellState]:
    """The block at the start and after every step that took something of it."""
    left = _Left(shape.width, shape.full(INSIDE_NAME))
    states: list[tuple[int, _Left, int | None]] = [(0, left, None)]
    for taken, step in enumerate(report.steps, 1):
        for cut in step.chosen.cuts:
            if (cut.kind, cut.layer) == (kind, layer) and (after := left.after(cut)) != left:
                left = after
                states.append((taken, left, step.step))
    if not report.steps:
        yield _end_state(report.state, kind, layer, shape)
        return
    ends = [start for start, _, _ in states[1:]]
    for (start, then, number), end in zip(states, [*ends, None], strict=True):
        yield _state(kind, layer, shape, then, number, start, end)


def _end_state(state: PruningState, kind: BlockKind, layer: int, shape: BlockShape) -> CellState:
    width = state.widths(kind)[layer] if layer in state.left(kind) else 0
    inside = state.width(EXPERT_WIDTH, layer) if shape.mixture else shape.full(INSIDE_NAME)
    return _state(kind, layer, shape, _Left(width, inside))


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of a block."""

    width: int
    """Channels, or experts; 0 where it is gone."""
    inside: int
    """Channels of each expert of a mixture; of other blocks always the same."""

    def after(self, cut: Cut) -> "_Left":
        """Without what a cut takes; the same where that was gone already."""
        if cut.is_inside:
            return replace(self, inside=min(self.inside, cut.width_after))
        return replace(self, width=min(self.width, cut.width_after))


def _state(
    kind: BlockKind,
    layer: int,
    shape: BlockShape,
    left: _Left,
    step: int | None = None,
    start: int = 0,
    end: int | None = None,
) -> CellState:
    width, full_inside = left.width, shape.full(INSIDE_NAME)
    name = f"layer {layer}, {BLOCK_NAMES[kind]}"
    share = width / shape.width * (left.inside / full_inside if full_inside else 1)
    at = "" if step is None else f"\n{'last cut' if width else 'went'} at step {step}"
    if (width, left.inside) == (shape.width, full_inside):
        return CellState(start, end, 1.0, None, "", f"{name}: whole")
    if width == 0:
        text = "" if step is None else str(step)
        return CellState(start, end, 0.0, colours.GONE, text, f"{name}: gone{at}")
    # A block that lost something is never said to be whole, nor one that is left to be gone.
    percent = min(99, max(1, int(share * 100 + 0.5)))
    channels = f"{width:,} of {shape.width:,} {'experts' if shape.mixture else 'channels'}"
    if left.inside < full_inside:
        channels += f" of {left.inside:,} of {full_inside:,} channels"
    tip = f"{name}: {percent} % left\n{channels}{at}"
    return CellState(start, end, share, colours.kind(kind), f"{percent}%", tip)


CHART = Source(of_run, of_comparison)
