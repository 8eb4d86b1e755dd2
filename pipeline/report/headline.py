"""The run in three sentences: what was removed, what that cost, what it gained."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.measure.intervals import Interval
from pipeline.measure.record import PARTS, Part, Record, speed_up, tasks_protocol
from pipeline.pruning.shape import BLOCK_KINDS, BLOCK_NAMES, BlockKind
from pipeline.pruning.state import PruningState
from pipeline.report.data import SIDES, RunReport, finite, mean_accuracy
from pipeline.report.dense_and_pruned import accuracy_text, gain_text
from pipeline.report.wording import (
    TIMES,
    number,
    relative_change,
    short_count,
    signed,
)

NO_CHANGE = "no measurable change"
PART_NAMES: dict[Part, str] = {"prefill": "prefill", "decode": "decoding"}


@dataclass(frozen=True, slots=True)
class Headline:
    """A number in large letters and what belongs to it."""

    title: str
    value: str
    quantity: str
    """What the number is of."""
    details: tuple[str, ...]


def headlines(report: RunReport) -> list[Headline]:
    """Removed, cost and gained."""
    return [_removed(report), _cost(report), _gained(report)]


def _removed(report: RunReport) -> Headline:
    state = report.state
    sizes = (
        f"{short_count(state.shape.total_params)} → {short_count(state.params)} parameters "
        f"in {len(state.shape.layers)} layers"
    )
    if state.shape.has_mixtures:
        active = PruningState.dense(state.shape).active_params, state.active_params
        sizes += f", {' → '.join(map(short_count, active))} active per token"
    gone = {kind: _whole(report, kind) - len(state.left(kind)) for kind in BLOCK_KINDS}
    narrower = {
        kind: sum(state.is_narrower(kind, i) for i in state.left(kind)) for kind in BLOCK_KINDS
    }
    details = [sizes]
    for counts, label in ((gone, "whole blocks gone"), (narrower, "blocks made narrower")):
        kinds = [f"{count} {BLOCK_NAMES[kind]}" for kind, count in counts.items() if count]
        if kinds:
            details.append(f"{label}: {', '.join(kinds)}")
    return Headline("Removed", f"{state.ratio_percent:.1f} %", "of the parameters", tuple(details))


def _whole(report: RunReport, kind: BlockKind) -> int:
    """Blocks of the dense model."""
    return sum(width > 0 for width in report.shape.widths(kind))


def _cost(report: RunReport) -> Headline:
    """The best measure of quality that both models have in large; the others below."""
    texts = [(f"perplexity on {each.protocol}", each) for each in report.texts]
    candidates = [
        (name, before, after, recovered)
        for name, before, after, recovered in (
            *((name, each.dense, each.pruned, each.recovered) for name, each in texts),
            ("calibration perplexity", *report.calibration_perplexities, None),
        )
        if before is not None and after is not None
    ]
    lines = [
        f"{name} {number(before)} → {number(after)}"
        + ("" if recovered is None else f", {number(recovered)} after recovery")
        for name, before, after, recovered in candidates
    ]
    details = [*lines[:2], *_accuracy(report)]
    if not candidates:
        last = report.calibration_perplexities[1]
        details += [] if last is None else [f"calibration perplexity {number(last)} at the end"]
        return Headline("Cost", "", "not measured", tuple(details))
    name, before, after, recovered = candidates[0]
    if recovered is None:
        return Headline("Cost", relative_change(before, after), name, tuple(details))
    change = relative_change(before, recovered)
    return Headline("Cost", change, f"{name}, after recovery", tuple(details))


def _gained(report: RunReport) -> Headline:
    """The first speed that changed beyond doubt in large; what all are, below."""
    dense, pruned = (report.record_of(side) for side in SIDES)
    before, after = (record.latency if record else None for record in (dense, pruned))
    gains = {PART_NAMES[part]: gain for part in PARTS if (gain := speed_up(before, after, part))}
    details = [f"{name}: {_said(gain)}" for name, gain in gains.items()]
    memory = [
        f"{name} {relative_change(before, after)}"
        for name, (before, after) in (
            ("weights", _pair(report, lambda r: r.memory.weights if r.memory else None)),
            (
                "KV cache",
                _pair(report, lambda r: r.memory.kv_cache_per_token if r.memory else None),
            ),
        )
        if before and after is not None
    ]
    if memory:
        details.append(", ".join(memory))
    if gains:
        name, gain = next(
            ((name, gain) for name, gain in gains.items() if not gain.contains(1.0)),
            next(iter(gains.items())),
        )
        return Headline("Gained", *_in_large(name, gain), tuple(details))
    if memory:
        return Headline("Gained", "", "speed not measured", tuple(details))
    return Headline("Gained", "", "not measured", ())


def _said(gain: Interval) -> str:
    return NO_CHANGE if gain.contains(1.0) else f"{gain_text(gain)} as fast"


def _in_large(name: str, gain: Interval) -> tuple[str, str]:
    """A number and what it is of."""
    if gain.contains(1.0):
        return "", f"{NO_CHANGE} of speed"
    return f"{gain.median:.2f}{TIMES}", f"{name} speed"


def _accuracy(report: RunReport) -> list[str]:
    """Of the last evaluation, or of the probe without one."""
    for evaluated in report.accuracies[:1]:
        tasks = [evaluated.tasks(side) for side in ("dense", "pruned")]
        before, after = map(mean_accuracy, tasks)
        if before and after and tasks_protocol(tasks[0]) == tasks_protocol(tasks[1]):
            points = signed((after[0] - before[0]) * 100)
            recovered = mean_accuracy(evaluated.tasks("recovered"))
            back = f", {accuracy_text(recovered)} after recovery" if recovered else ""
            return [
                f"accuracy {before[0] * 100:.1f} → {accuracy_text(after)}, {points} points{back}: "
                f"{tasks_protocol(tasks[1])}"
            ]
    return []


def _pair(
    report: RunReport, value: Callable[[Record], float | None]
) -> tuple[float | None, float | None]:
    before, after = (report.record_of(side) for side in ("dense", "pruned"))
    return (
        finite(value(before)) if before else None,
        finite(value(after)) if after else None,
    )
