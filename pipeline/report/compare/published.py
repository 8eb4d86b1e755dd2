"""The paper's own points for the models that are compared."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.report.compare.records import ComparedRun

FIVE_TASKS = {"piqa", "winogrande", "hellaswag", "arc_easy", "arc_challenge"}
SEQLEN = 2048


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


def measures_ppl_alike(run: ComparedRun) -> bool:
    """Whether the run's perplexity is WikiText-2's over all windows of 2048."""
    settings = run.settings
    return (
        settings.get("evaluate.text") == "wikitext2"
        and settings.get("evaluate.seqlen") == SEQLEN
        and settings.get("evaluate.text_tokens") is None
        and run.perplexity() is not None
    )


def measures_accuracy_alike(run: ComparedRun) -> bool:
    """Whether the run's accuracy is the mean of all items of the paper's five tasks."""
    return (
        {task.task for task in run.tasks()} == FIVE_TASKS
        and run.pruned.evaluation is not None
        and run.settings.get("evaluate.limit") is None
    )


@cache
def _all() -> Published:
    path = resources.files("pipeline.report.compare").joinpath("published_results.json")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    points = (
        PublishedPoint(**{**p, "distribution": p["distribution"] and tuple(p["distribution"])})
        for p in data["points"]
    )
    return Published(data["source"], data["protocol"], tuple(points))
