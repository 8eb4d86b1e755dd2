"""One flat row of metrics for a step of a run and what was measured after it.

Units are in the names; accuracies are fractions. What was not measured, or is no finite number, is
left out: JSON has no not-a-number, and a chart shows a gap either way.
"""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.measure.record import Latency, Memory, Record, tasks_protocol
from pipeline.pruning.records import StepRecord

Value = float | int | str
Metrics = Mapping[str, Value]

STEP = "prune/step"
"""The axis of every chart: removals so far. The dense model is 0."""
RATIO = "prune/ratio_percent"
"""The other axis people ask for."""


def dense_metrics(total_params: int, record: Record | None) -> dict[str, Value]:
    """The row of the dense model, before the first removal."""
    return {STEP: 0, RATIO: 0.0, "prune/params": total_params, **probe_metrics(record)}


def step_metrics(step: StepRecord, record: Record | None) -> dict[str, Value]:
    """The row of one removal; ``prune/importance`` is the perplexity after it.

    Under another criterion ``prune/criterion`` and ``prune/score`` stand in its place.
    """
    return _finite(
        {
            STEP: step.step + 1,
            RATIO: step.ratio_percent,
            **{f"prune/{name}": value for name, value in step.decision.score_json().items()},
            "prune/params": step.params,
            "prune/dimension": step.dimension,
            **{f"prune/{name}": value for name, value in step.chosen.to_json().items()},
        }
    ) | probe_metrics(record)


def probe_metrics(record: Record | None) -> dict[str, Value]:
    """What a probe measured, without the step it belongs to."""
    if record is None:
        return {}
    return _finite(
        {
            "probe/ppl": record.ppl,
            "probe/accuracy": record.accuracy,
            **{f"probe/accuracy_{score.task}": score.accuracy for score in record.tasks},
            **_latency_metrics(record.latency),
            **_memory_metrics(record.memory),
            "probe/seconds": record.seconds,
        }
    )


def evaluation_metrics(which: str, record: Record | None) -> dict[str, Value]:
    """The full evaluation of a model, ``which`` is dense or pruned. Fractions, not percent."""
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


def _latency_metrics(latency: Latency | None) -> dict[str, float]:
    if latency is None:
        return {}
    return {
        "probe/prefill_median_ms": latency.prefill.median_ms,
        "probe/prefill_p95_ms": latency.prefill.p95_ms,
        "probe/decode_median_ms": latency.decode.median_ms,
        "probe/decode_p95_ms": latency.decode.p95_ms,
        "probe/prefill_tokens_per_s": latency.prefill_tokens_per_s,
        "probe/decode_tokens_per_s": latency.decode_tokens_per_s,
    }


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
