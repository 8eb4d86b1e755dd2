"""Published results of the models that are compared: the paper's own, and other methods'.

Each source has its protocol. A number is set beside ours only where both were measured alike.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
PAPER = "MultiPruner"
"""The source of the paper's own curve."""
DENSE, BLOCKPRUNER = "dense", "BlockPruner"
BLOCKS_ALONE = (1.0, 0.0, 0.0)
"""Shares with which MultiPruner is BlockPruner."""
NEAR_PERCENT = 1.0
"""A published ratio and ours within so many points are set side by side."""


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """Where results were published, and how they were measured."""

    name: str
    """In short."""
    source: str
    protocol: str
    """In words."""
    text: tuple[str, str, int] | None
    """Of the perplexities: text, split and tokens in a window."""
    is_five_tasks: bool
    """Whether accuracies are means over the paper's five tasks, as the paper takes them."""
    counts_all_params: bool
    """Whether ratios are of all parameters, embeddings included."""

    @property
    def has_our_perplexity(self) -> bool:
        """Whether perplexities can be set beside ours of the same text."""
        return self.counts_all_params and self.text == TEXT

    @property
    def has_our_accuracy(self) -> bool:
        """Whether accuracies can be set beside ours of the five tasks."""
        return self.counts_all_params and self.is_five_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """A published result: one method at one ratio."""

    source: PublishedSource
    model: str
    hf_id: str
    method: str
    """Its name there; dense of the whole model."""
    removed_percent: float
    ppl: float | None
    accuracy_percent: float | None
    by_task_percent: Mapping[str, float] = field(default_factory=dict)
    ours: Mapping[str, Any] | None = None
    """Settings of a run of ours that does the same; None where none can."""

    @property
    def title(self) -> str:
        """The method, with its shares where it has some."""
        shares = (self.ours or {}).get("prune.distribution")
        return f"{self.method} {':'.join(map(str, shares))}" if shares else self.method


@dataclass(frozen=True, slots=True)
class Published:
    """What there is for the models of the runs. Points of one source are together."""

    points: tuple[PublishedPoint, ...]

    @property
    def sources(self) -> list[PublishedSource]:
        """Where they come from."""
        return list(dict.fromkeys(point.source for point in self.points))


def published_for(runs: Iterable[ComparedRun]) -> Published:
    """The points of every model that one of ``runs`` prunes; none for other models."""
    paths = {run.model_path for run in runs if run.model_path}
    return Published(tuple(p for p in _all() if any(is_model(path, p) for path in paths)))


def is_model(path: str, point: PublishedPoint) -> bool:
    """Whether a hub id or a folder is that model; a folder by its name."""
    name = Path(path).name.lower()
    return path == point.hf_id or name in (Path(point.hf_id).name.lower(), point.model.lower())


def ppl_as_published(run: ComparedRun, pruned: bool = True) -> Value | None:
    """The run's perplexity on WikiText-2's test text in all its windows of 2048."""
    for protocol, score in (run.pruned if pruned else run.dense).texts.items():
        if (score.text, score.split, score.seqlen) == TEXT and score.is_whole and not score.bos:
            return run.perplexity(pruned, protocol)
    return None


def accuracy_as_published(run: ComparedRun, pruned: bool = True) -> Value | None:
    """The run's accuracy over all items of the paper's five tasks, where that is what it shows."""
    tasks = run.tasks(pruned)
    is_alike = {task.task: task.items for task in tasks if not task.bos} == FIVE_TASKS
    return run.accuracy(pruned) if is_alike else None


def nearest(point: PublishedPoint, runs: Iterable[ComparedRun]) -> ComparedRun | None:
    """Our run of the same model that does the same, at the same ratio.

    None where the source measured nothing that could be set beside ours.
    """
    if not (point.source.has_our_perplexity or point.source.has_our_accuracy):
        return None
    fitting = [
        run
        for run in runs
        if run.is_done
        and run.origin is None
        and is_model(run.model_path, point)
        and (
            point.method == DENSE
            or (does_the_same(run, point) and _distance(run, point) <= NEAR_PERCENT)
        )
    ]
    return min(fitting, key=lambda run: _distance(run, point), default=None)


def does_the_same(run: ComparedRun, point: PublishedPoint) -> bool:
    """Whether a run prunes by the method of a point, with its settings."""
    ours = run.settings
    if point.ours is None:
        return False
    shares = ours.get("prune.distribution") or ()
    if point.method == BLOCKPRUNER and ours.get("prune.method") == "multipruner":
        return _normal(shares) == BLOCKS_ALONE
    return all(
        _normal(shares) == _normal(value) if key == "prune.distribution" else ours.get(key) == value
        for key, value in point.ours.items()
    )


def _distance(run: ComparedRun, point: PublishedPoint) -> float:
    return abs((run.removed_percent or 0.0) - point.removed_percent)


def _normal(shares: Sequence[float]) -> tuple[float, ...]:
    whole = sum(shares) or 1
    return tuple(round(share / whole, 4) for share in shares)


@cache
def _all() -> tuple[PublishedPoint, ...]:
    """The paper's own points, then those of other methods and papers."""
    return (*_papers(), *_others())


def _read(name: str) -> dict[str, Any]:
    path = resources.files("pipeline.report.compare").joinpath(name)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _papers() -> Iterator[PublishedPoint]:
    data = _read("published_results.json")
    source = PublishedSource(PAPER, data["source"], data["protocol"], TEXT, True, True)
    for point in data["points"]:
        ours: dict[str, Any] = {"prune.method": point["method"].lower()}
        if point["distribution"]:
            ours["prune.distribution"] = tuple(point["distribution"])
        yield PublishedPoint(
            source=source,
            model=point["model"],
            hf_id=point["hf_id"],
            method=point["method"],
            removed_percent=point["removed_percent"],
            ppl=point["wikitext2_ppl"],
            accuracy_percent=point["average_accuracy_percent"],
            ours=None if point["method"] == DENSE else ours,
        )


def _others() -> Iterator[PublishedPoint]:
    for entry in _read("published_methods.json")["sources"]:
        points = entry.pop("points")
        text = entry.pop("text")
        source = PublishedSource(**entry, text=tuple(text) if text else None)
        for point in points:
            yield PublishedPoint(source=source, **point)
