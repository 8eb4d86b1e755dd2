"""One invocation from plan to pictures: tracked while it runs, drawn when it is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config import Config
from pipeline.execution.inline import Invocation
from pipeline.execution.outcome import report_of
from pipeline.execution.plan import Plan
from pipeline.execution.run_folder import RunFolder
from pipeline.execution.store import Store
from pipeline.files import Json
from pipeline.models.source import ModelSource
from pipeline.progress import Display
from pipeline.report.page import write_page
from pipeline.report.picture import write_picture
from pipeline.report.table import comparison_table
from pipeline.tracking.tracker import LocalTracker, Tracker, Trackers
from pipeline.tracking.wandb_session import WandbRun
from pipeline.tracking.wandb_tracker import WandbTracker

CANDIDATE_COLUMNS = ("step", "unit", "layer", "width_after", "ppl")


def run(
    config: Config,
    source: ModelSource,
    plan: Plan,
    folder: RunFolder,
    store: Store,
    display: Display,
    console: Console,
) -> None:
    """Run a plan, then draw and track what came of it. Raises what a stage raises."""
    tracker = open_tracker(config, folder, display.note)
    failed = True
    try:
        invocation = Invocation(config, source, plan, folder, store, display, tracker)
        summary = invocation.run()
        picture, page = folder.path / "report.png", folder.path / "report.html"
        report = report_of(invocation, summary)
        write_picture(report, picture)
        write_page(report, page)
        _track_outcome(tracker, invocation, summary, picture)
        failed = False
    finally:
        tracker.finish(failed=failed)
    console.print(comparison_table(report))
    for path in (folder.path, picture, page):
        console.print(f"{'done' if path == folder.path else 'see'}: {path}", highlight=False)


def open_tracker(config: Config, folder: RunFolder, note: Callable[[str], None]) -> Tracker:
    """The trackers that a configuration asks for, as one."""
    settings = config.tracking
    trackers: list[Tracker] = []
    if settings.name != "none":
        trackers.append(LocalTracker(folder.path / "metrics.jsonl"))
    if settings.name == "wandb":
        mirror = WandbRun(
            run_id=folder.tracking_id,
            folder=folder.path,
            project=settings.project,
            entity=settings.entity,
            name=folder.path.name,
            group=settings.group,
            job_type="prune",
            tags=tuple(settings.tags),
            config=config.model_dump(mode="json"),
            mode=settings.mode,
        )
        trackers.append(WandbTracker(mirror, note))
    return Trackers(trackers)


def _track_outcome(tracker: Tracker, invocation: Invocation, summary: Json, picture: Path) -> None:
    values: dict[str, Any] = {
        name: summary[name]
        for name in ("ratio_percent", "params", "total_params", "steps", "ppl", "dense_ppl")
        if summary[name] is not None
    }
    for which, entry in (summary["evaluation"] or {}).items():
        values |= {f"evaluate/{which}_{k}": v for k, v in entry.items() if v is not None}
    tracker.summary(values)
    tracker.table(
        "candidates",
        CANDIDATE_COLUMNS,
        [
            (row.step + 1, s.candidate.unit, s.candidate.layer, s.candidate.width_after, s.ppl)
            for row in invocation.rows
            for s in row.scored
        ],
    )
    tracker.picture("report", picture)
