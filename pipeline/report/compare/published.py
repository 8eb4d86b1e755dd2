"""The paper's own points for the models that are compared."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.report.compare.records import ComparedRun, Value

FIVE_TASKS = {
    "piqa": 1838, "winogrande": 1267, "hellaswag": 10042, "arc_easy": 2376, "arc_challenge": 1172
}  # fmt: skip
"""The paper's tasks, and all their items."""
TEXT = ("WikiText-2", "test", 2048)
"""Text, split and tokens in a window."""


@dataclass(frozen=True, slots=True)
class PublishedPoint:
    """One row of the paper's tables."""

    model: str
    hf_id: str
    method: str
    """MultiPruner, BlockPruner or dense."""
    ratio_percent: float
    """As the paper names it."""
    distribution: tuple[int, ...] | None
    removed_percent: float
    wikitext2_ppl: float
    average_accuracy_percent: float


@dataclass(frozen=True, slots=True)
class Published:
    """What there is for the models of the runs."""

    source: str
    protocol: str
    points: tuple[PublishedPoint, ...]


def published_for(runs: Iterable[ComparedRun]) -> Published:
    """The points of every model that one of ``runs`` prunes; none for other models."""
    paths = {run.model_path for run in runs if run.model_path}
    everything = _all()
    points = tuple(p for p in everything.points if any(is_model(path, p) for path in paths))
    return Published(everything.source, everything.protocol, points)


def is_model(path: str, point: PublishedPoint) -> bool:
    """Whether a hub id or a folder is that model; a folder by its name."""
    name = Path(path).name.lower()
    return path == point.hf_id or name in (Path(point.hf_id).name.lower(), point.model.lower())


def ppl_as_published(run: ComparedRun, pruned: bool = True) -> Value | None:
    """The run's perplexity on WikiText-2's test text in all its windows of 2048."""
    for protocol, score in (run.pruned if pruned else run.dense).texts.items():
        if (score.text, score.split, score.seqlen) == TEXT and score.is_whole:
            return run.perplexity(pruned, protocol)
    return None


def accuracy_as_published(run: ComparedRun, pruned: bool = True) -> Value | None:
    """The run's accuracy over all items of the paper's five tasks, where that is what it shows."""
    is_alike = {task.task: task.items for task in run.tasks(pruned)} == FIVE_TASKS
    return run.accuracy(pruned) if is_alike else None


@cache
def _all() -> Published:
    path = resources.files("pipeline.report.compare").joinpath("published_results.json")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    points = (
        PublishedPoint(**{**p, "distribution": p["distribution"] and tuple(p["distribution"])})
        for p in data["points"]
    )
    return Published(data["source"], data["protocol"], tuple(points))
