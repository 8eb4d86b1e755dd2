"""The dense model beside the pruned and the recovered one, row by row, as text."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.measure.intervals import Interval
from pipeline.measure.paired import paired_ends
from pipeline.measure.record import (
    EAGER,
    EARLIER,
    PARTS,
    WAYS,
    Latency,
    Part,
    Record,
    TaskScore,
    speed_up,
    tasks_protocol,
)
from pipeline.pruning.state import PruningState
from pipeline.report.data import MODELS, RunReport, Side, TextLoss, finite, mean_accuracy
from pipeline.report.wording import NOTHING, TIMES, number, relative_change, signed, span

BYTES_PER_MB = 1e6
SMALLEST_CHANGE = 5e-4
"""Relative; less shows as 0.0 % and is neither better nor worse."""
WITHIN_NOISE = "within noise"
UNPAIRED = "(unpaired)"
"""Where an earlier version measured accuracies: items were not kept to be paired."""


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of the models. Empty text stands for nothing to say."""

    label: str
    dense: str
    pruned: str
    change: str
    """From the dense to the pruned model."""
    better: bool | None = None
    """Whether the pruned model is better here; None where that is no question, or no change."""
    indent: bool = False
    """Whether the row is a part of the one above."""
    interval: str = ""
    """From where to where the change may be, with 95 %: of accuracies, by the same items."""
    recovered: str = ""
    """After recovery."""
    back: str = ""
    """What came back: the share of the lost log-perplexity, or points of accuracy with their
    interval of 95 % by the same items."""


def dense_and_pruned(report: RunReport) -> list[Row]:
    """All rows that there is data for."""
    rows = [
        *_size(report),
        *_perplexities(report),
        *_accuracies(report),
        *_latency(report),
        *_memory(report),
        *_exported(report),
    ]
    return [row for row in rows if row is not None]


def _size(report: RunReport) -> Iterator[Row]:
    before, after = report.shape.total_params, report.state.params
    yield Row("Parameters", f"{before:,}", f"{after:,}", relative_change(before, after))
    if report.shape.has_mixtures:
        dense = PruningState.dense(report.shape)
        before_each, after_each = dense.active_params, report.state.active_params
        change = relative_change(before_each, after_each)
        label = "active per token"
        yield Row(label, f"{before_each:,}", f"{after_each:,}", change, indent=True)
    removed = f"{report.state.ratio_percent:.2f} %"
    yield Row("Removed", "", removed, f"target {report.target_ratio:g} %")
    if origin := report.origin:
        first, second = (f"{origin.removed_percent(n):.2f} %" for n in (before, after))
        yield Row(f"Removed of {origin.name}", first, second, "")


def _perplexities(report: RunReport) -> Iterator[Row | None]:
    for text in report.texts:
        row = _row(f"Perplexity: {text.protocol}", text.dense, text.pruned, digits=2)
        recovered = finite(text.recovered)
        if row and recovered:
            row = replace(row, recovered=number(recovered, 2), back=_share_back(text, recovered))
        yield row
    if not report.texts and report.calibration_perplexities[1] is not None:
        on = f": {report.calibration_text}" if report.calibration_text else ""
        yield _row(f"Calibration perplexity{on}", *report.calibration_perplexities, digits=2)
    for name, (before, after) in report.only_watched.items():
        label = f"Perplexity: held-out text of recovery, {name}"
        yield Row(label, "", number(before, 2), "", recovered=number(after, 2))


def _share_back(text: TextLoss, recovered: float) -> str:
    """The share of the lost log-perplexity; nothing where none was lost."""
    if not text.dense or not text.pruned or text.pruned <= text.dense:
        return ""
    share = math.log(text.pruned / recovered) / math.log(text.pruned / text.dense)
    return f"{round(share * 100)} % back"


def _accuracies(report: RunReport) -> Iterator[Row | None]:
    for evaluated in report.accuracies:
        yield from _accuracy(*(evaluated.tasks(side) for side in MODELS))


def _accuracy(
    before: Sequence[TaskScore], after: Sequence[TaskScore], recovered: Sequence[TaskScore]
) -> Iterator[Row | None]:
    ours, theirs, back = (
        {task.task: task for task in tasks} for tasks in (before, after, recovered)
    )
    tasks = {**ours, **theirs}
    if len(tasks) > 1:
        # A mean over other tasks than the other model's says nothing about pruning.
        comparable = not (ours and theirs) or ours.keys() == theirs.keys()
        label = f"Accuracy: {tasks_protocol(list(tasks.values()))}"
        row = _accuracy_row(label, before, after, comparable)
        yield _with_recovered(row, after, recovered if back.keys() == tasks.keys() else ())
    for name, task in tasks.items():
        dense, pruned, tuned = (_only(side.get(name)) for side in (ours, theirs, back))
        row = _accuracy_row(f"{name}, {task.items:,} items", dense, pruned)
        row = _with_recovered(row, pruned, tuned)
        if row and len(tasks) > 1:
            yield replace(row, indent=True)
        elif row:
            yield replace(row, label=f"Accuracy: {row.label}")


def _with_recovered(
    row: Row | None, pruned: Sequence[TaskScore], recovered: Sequence[TaskScore]
) -> Row | None:
    """With the recovered model's accuracy, and what came back where the items are the same."""
    before, after = mean_accuracy(pruned), mean_accuracy(recovered)
    if row is None or after is None:
        return row
    ends = paired_ends(recovered, pruned)
    back = (
        f"{signed((after[0] - before[0]) * 100)} points {_signed_span(ends)}"
        if before and ends
        else ""
    )
    return replace(row, recovered=accuracy_text(after), back=back)


def _signed_span(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"({signed(low)} to {signed(high)})"


Accuracy = tuple[float, float | None]
"""A fraction and its standard error."""


def _only(task: TaskScore | None) -> Sequence[TaskScore]:
    return (task,) if task else ()


def accuracy_text(accuracy: Accuracy | None) -> str:
    """In percent, with its standard error where there is one."""
    if accuracy is None:
        return NOTHING
    value, stderr = accuracy
    error = "" if stderr is None else f" ± {stderr * 100:.1f}"
    return f"{value * 100:.1f}{error} %"


def _accuracy_row(
    label: str,
    before: Sequence[TaskScore],
    after: Sequence[TaskScore],
    comparable: bool = True,
) -> Row | None:
    dense, pruned = mean_accuracy(before), mean_accuracy(after)
    if dense is None and pruned is None:
        return None
    row = Row(label, accuracy_text(dense), accuracy_text(pruned), "")
    if not (dense and pruned and comparable):
        return row
    change = pruned[0] - dense[0]
    points, better = f"{signed(change * 100)} points", _better(change, lower=False)
    ends = paired_ends(after, before)
    if ends is None:
        return replace(row, change=points, better=better, interval=UNPAIRED)
    low, high = ends
    return replace(
        row,
        change=points,
        better=None if low <= 0 <= high else better,
        interval=_signed_span(ends),
    )


def _latency(report: RunReport) -> Iterator[Row | None]:
    """Every workload: times with what changed beyond doubt, speeds, and what the device allows."""
    for workload in report.workloads:
        before, after = (_latency_of(report, side, workload) for side in ("dense", "pruned"))
        shown = after or before
        if shown is None:
            continue
        named = f"{workload}: " if len(report.workloads) > 1 else ""
        how = f", {WAYS[shown.way]}" if shown.way in (EAGER, EARLIER) else ""
        what: dict[Part, str] = {
            "prefill": f"Prefill, {shown.batch} {TIMES} {shown.prompt_tokens} tokens{how} (ms)",
            "decode": f"Decode, batch of {shown.batch}{how} (ms per token)",
        }
        for part in PARTS:
            yield _time_row(named + what[part], before, after, part)
            yield _row("tokens per second", *_speeds(before, after, part), digits=1, indent=True,
                       comparable=False)  # fmt: skip
            yield _floor_row(before, after, part)


def _time_row(label: str, before: Latency | None, after: Latency | None, part: Part) -> Row:
    """In turns the dense model's time is that of the same turns."""
    in_turns = after.speed_up.dense(part).median_ms if after and after.speed_up else None
    dense = before.timing(part).median_ms if before else None
    change, better = "", None
    if before and after and (gain := speed_up(before, after, part)):
        change, better = gain_text(gain), better_by(gain)
    return Row(
        label,
        number(in_turns or dense),
        number(after.timing(part).median_ms if after else None),
        change,
        better,
    )


def gain_text(gain: Interval) -> str:
    """How many times as fast, from where to where; where that may be once, no number."""
    if gain.contains(1.0):
        return WITHIN_NOISE
    return f"{span(*gain.ends)}{TIMES}"


def better_by(gain: Interval) -> bool | None:
    """Whether the pruned model is faster; None where that cannot be told."""
    return None if gain.contains(1.0) else gain.low > 1


def _speeds(
    before: Latency | None, after: Latency | None, part: Part
) -> tuple[float | None, float | None]:
    ours = after.tokens_per_s(part) if after else None
    if after and after.speed_up:
        tokens = after.tokens_per_s(part) * after.timing(part).median_ms
        return tokens / after.speed_up.dense(part).median_ms, ours
    return before.tokens_per_s(part) if before else None, ours


def _floor_row(before: Latency | None, after: Latency | None, part: Part) -> Row | None:
    shares = [latency.floor_share(part) if latency else None for latency in (before, after)]
    if shares == [None, None]:
        return None
    dense, pruned = (NOTHING if share is None else f"{share * 100:.0f} %" for share in shares)
    return Row("share that the device needs", dense, pruned, "", indent=True)


def _latency_of(report: RunReport, side: Side, workload: str) -> Latency | None:
    record = report.record_of(side)
    return record.latency_of(workload) if record else None


def _memory(report: RunReport) -> Iterator[Row | None]:
    values: list[tuple[str, Callable[[Record], float | None], int]] = [
        ("Weights (MB)", lambda r: r.memory.weights / BYTES_PER_MB if r.memory else None, 1),
        (
            "KV cache (bytes per token)",
            lambda r: r.memory.kv_cache_per_token if r.memory else None,
            0,
        ),
        (
            "Peak memory (MB)",
            lambda r: r.memory.peak / BYTES_PER_MB if r.memory and r.memory.peak else None,
            1,
        ),
    ]
    for label, value, digits in values:
        yield _row(label, _of(report, "dense", value), _of(report, "pruned", value), digits=digits)


def _exported(report: RunReport) -> Iterator[Row]:
    """Speeds in an engine that the model was exported to."""
    for target, result in report.exports.items():
        timed = result.get("llama_cpp")
        if not timed:
            continue
        where = f"llama.cpp, {result['dtype']}, {timed['threads']} threads"
        for name, tokens in (("prefill", "prompt_tokens"), ("decode", "output_tokens")):
            speeds = timed[name]
            interval = speeds["speed_up"]
            better = True if interval["low"] > 1 else False if interval["high"] < 1 else None
            yield Row(
                f"{target}: {name} of {timed[tokens]} tokens per second ({where})",
                number(speeds["dense_tokens_per_s"], 1),
                number(speeds["pruned_tokens_per_s"], 1),
                f"{span(interval['low'], interval['high'])}{TIMES}",
                better,
            )


def _of(report: RunReport, side: Side, value: Callable[[Record], float | None]) -> float | None:
    record = report.record_of(side)
    return finite(value(record)) if record else None


def _row(
    label: str,
    before: float | None,
    after: float | None,
    *,
    digits: int,
    lower: bool = True,
    comparable: bool = True,
    indent: bool = False,
) -> Row | None:
    """A row of two numbers, or None where both are missing; ``lower`` is what is better."""
    before, after = finite(before), finite(after)
    if before is None and after is None:
        return None
    change, better = "", None
    if before and after is not None and comparable:
        change, better = relative_change(before, after), _better(after / before - 1, lower=lower)
    return Row(label, number(before, digits), number(after, digits), change, better, indent)


def _better(change: float, *, lower: bool) -> bool | None:
    if math.isclose(change, 0, abs_tol=SMALLEST_CHANGE):
        return None
    return (change < 0) == lower
