"""Run folders that look like real ones: what a comparison reads, and nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from support_report import DIMENSIONS, HELD_OUT, record, shape, text

from pipeline.measure.record import Record, TaskScore, TextScore
from pipeline.pruning.records import StepRecord, to_jsonl
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import ATTN, Candidate
from pipeline.report.compare.published import FIVE_TASKS

SETTINGS: dict[str, Any] = {
    "model": {"path": "acme/tiny-1b", "dtype": "float16"},
    "calibration": {"dataset": "alpaca", "seqlen": 2048},
    "prune": {"method": "multipruner", "target_ratio": 10.0, "distribution": [44.0, 52.0, 4.0]},
    "scoring": {"precision": "model", "memory_fraction": 0.7},
    "probe": {"every": 5, "text": "/data/heldout.txt", "seqlen": 512, "text_tokens": 8192},
    "evaluate": {"tasks": [], "text": None, "seqlen": 2048, "text_tokens": None, "limit": None},
    "tracking": {"name": "none"},
    "cluster": {"name": "inline"},
    "sweep": {"name": None},
}
LAYERS = 12


def pruned_state(percent: float, distribution: Sequence[float]) -> PruningState:
    """What a run with such shares would end in, without trying anything."""
    state = PruningState.dense(shape(LAYERS))
    limits = [sum(distribution[: i + 1]) / sum(distribution) * percent for i in range(3)]
    for (units, group), limit in zip(DIMENSIONS.values(), limits, strict=True):
        while state.ratio_percent < limit:
            found = state.candidates(units, group)
            state = state.without(found[len(found) * 3 // 5])
    return state


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with ``changes`` by dotted keys."""
    found = json.loads(json.dumps(settings))
    for key, value in changes.items():
        section, _, name = key.partition(".")
        found[section][name] = value
    return found


def write_run(
    folder: Path,
    percent: float,
    distribution: Sequence[float] = (44.0, 52.0, 4.0),
    *,
    device: str = "NVIDIA H100",
    status: str = "done",
    error: str | None = None,
    accuracy: float | None = None,
    stderr: float = 0.01,
    ppl: float | None = None,
    evaluated: Sequence[str] = (),
    items: str | None = None,
    on: TextScore = HELD_OUT,
    **changes: Any,
) -> Path:
    """Write a run's folder as a finished (or ended) run leaves it. Keys use __ for the dot.

    ``items`` are which items of every task the pruned model has right; the dense one has all.
    """
    told = {key.replace("__", "."): value for key, value in changes.items()}
    told = {"prune.target_ratio": percent, "prune.distribution": list(distribution)} | told
    folder.mkdir(parents=True)
    put(folder / "run.json", {"key": folder.name, "config": merged(SETTINGS, told)})
    put(folder / "launch.json", {"folder": "/", "store": "/none", "needs": {}})
    put(folder / "stages.json", {})
    state, dense = pruned_state(percent, distribution), PruningState.dense(shape(LAYERS))
    pruned = record(state, 0)
    if accuracy is not None:
        scores = [replace(t, acc_norm=accuracy, acc_norm_stderr=stderr) for t in pruned.tasks]
        pruned = replace(pruned, tasks=tuple(scores))
    dense_record = record(dense, 0)
    if items is not None:
        pruned = with_items(pruned, items)
        dense_record = with_items(dense_record, "1" * len(items))
    made_by = {"device": device}
    records = {
        "dense": replace(dense_record, made_by=made_by, texts=(text(14.2, on),)),
        "pruned": replace(pruned, made_by=made_by, texts=(text(ppl or pruned.ppl, on),)),
    }
    is_done = status == "done"
    put(folder / "summary.json", {
        "run": folder.name, "status": status, "error": error, "target_ratio": percent,
        "ratio_percent": state.ratio_percent, "params": state.params,
        "total_params": dense.params, "shape": dense.shape.to_json(),
        "measured": {
            "dense": records["dense"].to_json(),
            "pruned": records["pruned"].to_json() if is_done else None,
        },
    })  # fmt: skip
    if is_done:
        put(folder / "pruning_config.json", state.to_pruning_config())
    if is_done and evaluated:
        put(folder / "evaluation.json", {
            name: replace(each, tasks=_tasks(evaluated, each.accuracy or 0.5)).to_json()
            for name, each in records.items()
        })  # fmt: skip
    (folder / "steps.jsonl").write_text(_first_steps(state), encoding="utf-8")
    return folder


def with_items(record: Record, marks: str) -> Record:
    """The record of a model that has the marked items of every task right."""
    share = marks.count("1") / len(marks)
    error = (share * (1 - share) / (len(marks) - 1)) ** 0.5
    scores = [
        TaskScore(task.task, len(marks), share, error, share, error, marks, marks)
        for task in record.tasks
    ]
    return replace(record, tasks=tuple(scores))


def _tasks(names: Sequence[str], accuracy: float) -> tuple[TaskScore, ...]:
    return tuple(
        TaskScore(name, FIVE_TASKS.get(name, 2000), accuracy, 0.01, accuracy, 0.01)
        for name in names
    )


def _first_steps(state: PruningState) -> str:
    gone = [Candidate(ATTN, layer, 0) for layer in state.removed_attn]
    decisions = [Step(each, 10.0, (ScoredCandidate(each, 10.0),)) for each in gone]
    return to_jsonl(
        StepRecord(step, "blocks", decision, 1.0, state.params)
        for step, decision in enumerate(decisions)
    )


METHODS: dict[str, Sequence[float]] = {
    "multipruner": (44.0, 52.0, 4.0),
    "blockpruner": (100.0, 0.0, 0.0),
    "random": (0.0, 100.0, 0.0),
    "shortgpt": (60.0, 40.0, 0.0),
}
"""Some of them, and the shares that their pruned models look like here."""


def write_method(folder: Path, method: str, percent: float, **changes: Any) -> Path:
    """A run of another method, whose settings have no distribution."""
    run = write_run(folder, percent, METHODS[method], prune__method=method, **changes)
    if method != "multipruner":
        owner = json.loads((run / "run.json").read_text(encoding="utf-8"))
        del owner["config"]["prune"]["distribution"]
        put(run / "run.json", owner)
    return run


def write_sweep(folder: Path, runs: Sequence[Path]) -> Path:
    """Write a sweep's list of runs."""
    entries = [{"run": str(run.absolute()), "overrides": ["prune.target_ratio=10"]} for run in runs]
    folder.mkdir(parents=True)
    put(
        folder / "sweep.json",
        {"name": folder.name, "command": "python launch.py -m", "runs": entries},
    )
    return folder


def put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


DISTRIBUTIONS = ((44.0, 52.0, 4.0), (100.0, 0.0, 0.0), (0.0, 100.0, 0.0), (20.0, 80.0, 0.0))


def large_sweep(place: Path) -> Path:
    """Four distributions, five ratios: one failed, one is running; and one that is not there."""
    runs = []
    for number, distribution in enumerate(DISTRIBUTIONS):
        for ratio in (5.0, 10.0, 15.0, 20.0, 25.0):
            name = f"tiny-{ratio:g}pct-{number}"
            status, error = "done", None
            if (number, ratio) == (1, 25.0):
                status, error = "failed", "CUDA out of memory: tried to allocate 2 GiB\nmore"
            if (number, ratio) == (2, 25.0):
                status = "running"
            worth = 0.62 - ratio * (0.006 + 0.002 * number)
            runs.append(
                write_run(
                    place / "runs" / name, ratio, distribution, status=status, error=error,
                    accuracy=worth, stderr=0.012, ppl=9 + ratio**1.5 * (0.05 + 0.01 * number),
                )
            )  # fmt: skip
    runs.append(place / "runs" / "gone")
    return write_sweep(place / "sweeps" / "large", runs)
