"""One flat row of metrics for a step of a run and what was measured after it.

Units are in the names; accuracies are fractions. What was not measured, or is no finite number, is
left out: JSON has no not-a-number, and a chart shows a gap either way.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.measure.record import (
    DEFAULT_WORKLOAD,
    EAGER,
    PARTS,
    Latency,
    Memory,
    Record,
    tasks_protocol,
)
from pipeline.pruning.records import StepRecord
from pipeline.pruning.state import PruningState

Value = float | int | str
Metrics = Mapping[str, Value]

STEP = "prune/step"
"""The axis of every chart: removals so far. The dense model is 0."""
RATIO = "prune/ratio_percent"
"""The other axis people ask for."""
PPL = "prune/ppl"
"""Perplexity on the calibration text, of the dense model and after every removal."""
NO_CURVES = ("prune/layer", "prune/width_after")
"""Numbers that are names."""
DETAILS = (STEP, RATIO, "prune/importance", "prune/params", "probe/seconds")
DETAIL_ENDINGS = ("_p95_ms", "_min_ms", "_floor_share", "_up_low", "_up_high", "/is_eager")
"""What gets no panel until it is asked for."""
RECOVER = "recover"
"""Learning curves: ``recover/TECHNIQUE/NAME`` over ``recover/TECHNIQUE/tokens``."""


def dense_metrics(
    total_params: int, record: Record | None, ppl: float | None = None
) -> dict[str, Value]:
    """The row of the dense model, before the first removal; ``ppl`` is on the calibration text."""
    row = _finite({STEP: 0, RATIO: 0.0, PPL: ppl, "prune/params": total_params})
    return row | probe_metrics(record)


def step_metrics(step: StepRecord, record: Record | None) -> dict[str, Value]:
    """The row of one removal; ``prune/ppl`` is the perplexity on the calibration text after it.

    ``prune/importance`` is the same under the name that it has in ``steps.jsonl``. Under another
    criterion ``prune/criterion`` and ``prune/score`` stand in the place of both.
    """
    return _finite(
        {
            STEP: step.step + 1,
            RATIO: step.ratio_percent,
            PPL: step.decision.perplexity,
            **{f"prune/{name}": value for name, value in step.decision.score_json().items()},
            "prune/params": step.params,
            "prune/dimension": step.dimension,
            **{f"prune/{name}": value for name, value in step.chosen.to_json().items()},
        }
    ) | probe_metrics(record)


def series_of(metrics: Metrics) -> dict[str, Value]:
    """Of a row what makes a curve: no words, and no numbers of layers or channels."""
    return {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, str) and name not in NO_CURVES
    }


def is_detail(name: str) -> bool:
    """Whether a curve is of little use in a panel of its own."""
    return name in DETAILS or name.endswith(DETAIL_ENDINGS)


def active_metrics(state: PruningState) -> dict[str, Value]:
    """Of a mixture of experts the parameters that one token passes; nothing of others."""
    return {"prune/active_params": state.active_params} if state.shape.has_mixtures else {}


def probe_metrics(record: Record | None) -> dict[str, Value]:
    """What a probe measured, without the step it belongs to."""
    if record is None:
        return {}
    return _finite(
        {
            "probe/ppl": record.ppl,
            "probe/accuracy": record.accuracy,
            **{f"probe/accuracy_{score.task}": score.accuracy for score in record.tasks},
            **_latency_metrics(record.latencies),
            **_memory_metrics(record.memory),
            "probe/seconds": record.seconds,
        }
    )


def evaluation_metrics(which: str, record: Record | None) -> dict[str, Value]:
    """The full evaluation of a model, e.g. ``which`` = dense. Fractions, not percent."""
    if record is None:
        return {}
    prefix = f"evaluate/{which}"
    values: dict[str, Value | None] = {
        f"{prefix}_ppl": record.ppl,
        f"{prefix}_accuracy": record.accuracy,
        "evaluate/accuracy_of": tasks_protocol(record.tasks) if record.tasks else None,
    }
    for text in record.texts:
        values |= {f"{prefix}_ppl_{text.name}": text.ppl, f"evaluate/{text.name}": text.protocol}
    for task in record.tasks:
        values[f"{prefix}_accuracy_{task.task}"] = task.accuracy
        values[f"{prefix}_stderr_{task.task}"] = task.stderr
    return _finite(values)


def learning_metrics(row: int, technique: str, point: Mapping[str, Any]) -> dict[str, Value]:
    """A point of a learning curve; ``row`` is where it stands behind the steps."""
    prefix = f"{RECOVER}/{technique}"
    values = {f"{prefix}/{name}": point.get(name) for name in ("tokens", "loss", "lr")}
    held_out = point.get("held_out") or {}
    perplexities = {f"{prefix}/ppl_{name}": ppl for name, ppl in held_out.items()}
    return {STEP: row, **_finite(values | perplexities)}


def export_metrics(target: str, result: Mapping[str, Any]) -> dict[str, Value]:
    """What was measured of an exported model."""
    values: dict[str, Value | None] = {f"export/{target}_bytes": result.get("bytes")}
    timed = result.get("llama_cpp") or {}
    for name in ("prefill", "decode"):
        if speeds := timed.get(name):
            for side in ("dense", "pruned"):
                values[f"export/{target}_{name}_{side}_tokens_per_s"] = speeds[
                    f"{side}_tokens_per_s"
                ]
            values[f"export/{target}_{name}_speed_up"] = speeds["speed_up"]["median"]
    return _finite(values)


def _latency_metrics(latencies: Iterable[Latency]) -> dict[str, float | None]:
    """Of every workload; all but the default one have its name in theirs."""
    values: dict[str, float | None] = {}
    for latency in latencies:
        of_workload = "" if latency.workload == DEFAULT_WORKLOAD else f"{latency.workload}/"
        for part in PARTS:
            name, timing = f"probe/{of_workload}{part}", latency.timing(part)
            values |= {
                f"{name}_median_ms": timing.median_ms,
                f"{name}_p95_ms": timing.p95_ms,
                f"{name}_min_ms": timing.min_ms,
                f"{name}_tokens_per_s": latency.tokens_per_s(part),
                f"{name}_floor_share": latency.floor_share(part),
            }
            if latency.speed_up:
                interval = latency.speed_up.of(part)
                values |= {
                    f"{name}_speed_up": interval.median,
                    f"{name}_speed_up_low": interval.low,
                    f"{name}_speed_up_high": interval.high,
                }
        values[f"probe/{of_workload}is_eager"] = int(latency.way == EAGER)
    return values


def _memory_metrics(memory: Memory | None) -> dict[str, int | None]:
    if memory is None:
        return {}
    return {
        "probe/peak_bytes": memory.peak,
        "probe/weight_bytes": memory.weights,
        "probe/kv_cache_bytes_per_token": memory.kv_cache_per_token,
    }


def _finite(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
