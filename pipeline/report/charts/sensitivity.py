"""How the dense model takes the loss of every single unit."""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.pruning.shape import BLOCK_NAMES
from pipeline.pruning.steps import PERPLEXITY
from pipeline.pruning.units import Candidate
from pipeline.report import colours
from pipeline.report.charts.base import Axis, Chart, Key, Level, Marker, Shape, Source, Stem
from pipeline.report.charts.run import DENSE_KEY
from pipeline.report.charts.sections import SENSITIVITY
from pipeline.report.data import RunReport, Sensitivity, UnitLoss, finite
from pipeline.report.wording import (
    DIMENSION_NAMES,
    TIMES,
    block_of,
    dimension_name,
    number,
    score_text,
)

ORDINARY_SHARE, ORDINARY_SPREAD = 0.85, 1.5
"""Sensitivities up to this quantile are ordinary; the axis ends at this multiple of the highest."""
NAMED_OUTLIERS = 2
SHAPES: dict[str, Shape] = {"attn": "circle", "mlp": "square"}
HOLLOW_KEY = Key("hollow: the run took from it", marker=Marker(colours.MUTED, hollow=True))
OTHER_SCORES = replace(
    SENSITIVITY, lead="The score of every unit: the higher, the more it is needed."
)
ONE_KIND, SEVERAL_KINDS = 1.3, 2.0
"""Widths of charts."""


def of_run(report: RunReport) -> Iterator[Chart]:
    """One chart for each dimension."""
    known = [name for name in DIMENSION_NAMES if name in report.sensitivity]
    others = [name for name in report.sensitivity if name not in known]
    for order, dimension in enumerate((*known, *others)):
        sensitivity = report.sensitivity[dimension]
        if sensitivity.losses:
            yield replace(_chart(report, sensitivity, dimension), order=order)


def _chart(report: RunReport, sensitivity: Sensitivity, dimension: str) -> Chart:
    candidates = [loss.candidate for loss in sensitivity.losses]
    names = {_marker(candidate): _kind_name(candidate) for candidate in candidates}
    dense = finite(sensitivity.dense_ppl)
    return Chart(
        section=SENSITIVITY if sensitivity.score_name == PERPLEXITY else OTHER_SCORES,
        title=dimension_name(dimension),
        x=Axis("layer", whole=True),
        y=Axis(sensitivity.score_name),
        stems=tuple(_stem(report, sensitivity, loss) for loss in sensitivity.losses),
        levels=() if dense is None else (Level(dense),),
        notes=(note(sensitivity, outlier_limit(sensitivity)),),
        keys=(
            *(Key(name, marker=marker) for marker, name in names.items()),
            HOLLOW_KEY,
            DENSE_KEY,
        ),
        weight=SEVERAL_KINDS if len(names) > 1 else ONE_KIND,
    )


def _stem(report: RunReport, sensitivity: Sensitivity, loss: UnitLoss) -> Stem:
    base, limit = base_of(sensitivity), outlier_limit(sensitivity)
    score, candidate = finite(loss.score), loss.candidate
    off_scale = score is not None and limit is not None and score > limit
    marker = replace(_marker(candidate), hollow=is_taken(report, candidate))
    value = "no number" if score is None else score_text(score, sensitivity.score_name)
    missing = block_of(candidate) if candidate.unit.is_whole else (
        f"first cut of the {_kind_name(candidate)}"
    )  # fmt: skip
    tip = f"layer {candidate.layer}, without the {missing}\n{sensitivity.score_name} {value}"
    tip += "\nthe run took from it" if marker.hollow else ""
    return Stem(candidate.layer, base, limit if off_scale else score, marker, tip, off_scale)


def _marker(candidate: Candidate) -> Marker:
    kinds = candidate.unit.kinds
    if len(kinds) > 1:
        return Marker(colours.kind(candidate.unit.name), "triangle")
    return Marker(colours.kind(kinds[0]), SHAPES.get(kinds[0], "circle"))


def _kind_name(candidate: Candidate) -> str:
    kinds = candidate.unit.kinds
    return BLOCK_NAMES[kinds[0]] if len(kinds) == 1 else candidate.unit.label


def outlier_limit(sensitivity: Sensitivity) -> float | None:
    """Where to end the axis: a few units may hurt so much that the others would all look alike.

    None where all fit.
    """
    base, known = base_of(sensitivity), _known(sensitivity)
    if not known:
        return None
    room = (known[int(len(known) * ORDINARY_SHARE)] - base) * ORDINARY_SPREAD
    return base + room if room > 0 and known[-1] > base + 1.5 * room else None


def base_of(sensitivity: Sensitivity) -> float:
    """What losses are compared with: the dense model's perplexity; without one, the lowest."""
    dense = finite(sensitivity.dense_ppl)
    return min(_known(sensitivity), default=0.0) if dense is None else dense


def _known(sensitivity: Sensitivity) -> list[float]:
    scores = (finite(loss.score) for loss in sensitivity.losses)
    return sorted(score for score in scores if score is not None)


def note(sensitivity: Sensitivity, limit: float | None) -> str:
    """What an axis that ends at ``limit`` does not show."""
    notes = []
    beyond = [
        (score, loss.candidate)
        for loss in sensitivity.losses
        if limit is not None and (score := finite(loss.score)) is not None and score > limit
    ]
    if beyond:
        worst = sorted(beyond, key=lambda pair: -pair[0])
        named = [f"{_unit_name(unit)}: {number(score)}" for score, unit in worst[:NAMED_OUTLIERS]]
        more = f", {len(beyond) - len(named)} more" if len(beyond) > len(named) else ""
        notes.append(f"▲ off the scale: {', '.join(named)}{more}")
    if any(finite(loss.score) is None for loss in sensitivity.losses):
        notes.append(f"{TIMES} no number")
    return "   ".join(notes)


def _unit_name(candidate: Candidate) -> str:
    name = _kind_name(candidate) if candidate.unit.is_whole else "layer"
    return f"{name} {candidate.layer}"


def is_taken(report: RunReport, candidate: Candidate) -> bool:
    """Whether the run removed the block or took channels of it."""
    state, layer = report.state, candidate.layer
    if candidate.unit.is_whole:
        return any(layer not in state.left(kind) for kind in candidate.unit.kinds)
    return any(state.is_narrower(kind, layer) for kind in candidate.unit.kinds)


CHART = Source(of_run=of_run)
