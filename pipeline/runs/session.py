"""One invocation from plan to pictures: tracked while it runs, drawn when it is done."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from pipeline.errors import LeaseLostError
from pipeline.files import Json, read_json
from pipeline.plan.run import Run
from pipeline.pruning.state import DIMENSIONS
from pipeline.report.data import RunReport
from pipeline.report.page import write_page
from pipeline.report.picture import write_picture
from pipeline.report.table import comparison_table
from pipeline.runs.display import Display
from pipeline.runs.interruption import Interrupted
from pipeline.runs.invocation import Invocation
from pipeline.runs.naming import display_name, job_type, mirrored_config, tags
from pipeline.runs.outcome import report_of
from pipeline.runs.parts import of_all_jobs
from pipeline.store.leases import awaited_lease
from pipeline.tracking.metrics import evaluation_metrics
from pipeline.tracking.tracker import LocalTracker, Tracker, Trackers
from pipeline.tracking.wandb_session import WandbRun
from pipeline.tracking.wandb_tracker import WandbTracker

PICTURE, PAGE = "report.png", "report.html"
TRACKED = {*DIMENSIONS, "prune", "probe"}
"""Stages that tell of steps."""
NOTHING: Mapping[str, Json] = {}
TRACKER_WAIT_S = 30.0
CANDIDATE_COLUMNS = ("step", "unit", "layer", "width_after", "ppl")


def run_all(run: Run, display: Display, console: Console) -> None:
    """Run a plan, then draw and track what came of it. Raises what a stage raises."""
    folder = run.folder
    with _tracking(run, run.plan.by_name, display) as (tracker, _):
        invocation = Invocation(
            run.config, run.source, run.plan, folder, run.store, display, tracker
        )
        report = _conclude(invocation, invocation.run(), tracker)
    console.print(comparison_table(report))
    for name in ("", PICTURE, PAGE):
        console.print(f"{'see' if name else 'done'}: {folder.path / name}", highlight=False)


def run_part(run: Run, only: Set[str], display: Display, told: dict[str, Json]) -> None:
    """Run some stages of a run in this process, and conclude the run if they were the last.

    ``told`` gets what was computed, whatever happens. One process at a time tracks the run: the one
    that takes its steps, and at last the one that concludes it.
    """
    with _tracking(run, only, display, wanted=bool(only & TRACKED)) as (tracker, tracks):
        part = _run_part(run, only, display, tracker, told)
        is_complete = run.is_complete
        if is_complete and tracks:
            _conclude(*part, tracker)
    if is_complete and not tracks:
        conclude(run, display, told, only)


def conclude(
    run: Run,
    display: Display,
    before: Mapping[str, Json] = NOTHING,
    only: Collection[str] = (),
) -> None:
    """Bring the results of a run's finished stages into its folder, and draw and track them.

    ``before`` and ``only`` are what this process has computed of it, and which stages.
    """
    with _tracking(run, only or run.plan.by_name, display) as (tracker, _):
        _conclude(*_run_part(run, frozenset(), display, tracker, {}, before), tracker)


def needs_conclusion(run: Run) -> bool:
    """Whether every stage is finished, and the run's folder does not say so yet."""
    if not run.is_complete:
        return False
    try:
        summary = read_json(run.folder.path / "summary.json")
    except FileNotFoundError:
        return True
    return summary["status"] != "done" or set(summary["stages"]) != set(run.plan.by_name)


def _run_part(
    run: Run,
    only: Set[str],
    display: Display,
    tracker: Tracker,
    told: dict[str, Json],
    before: Mapping[str, Json] = NOTHING,
) -> tuple[Invocation, Json]:
    invocation = Invocation(
        run.config, run.source, run.plan, run.folder, run.store, display, tracker, only
    )
    try:
        summary = invocation.run()
    except LeaseLostError:
        raise
    except BaseException as error:
        told |= _told(invocation, only)
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        summary = read_json(run.folder.path / "summary.json")
        run.folder.write_summary(of_all_jobs(run, summary, before) | {"status": status})
        raise
    told |= _told(invocation, only)
    status = "done" if run.is_complete else "running"
    summary = of_all_jobs(run, summary, before) | {"status": status}
    run.folder.write_summary(summary)
    return invocation, summary


def _told(invocation: Invocation, only: Set[str]) -> dict[str, Json]:
    return {
        "stages": {name: entry for name, entry in invocation.stages.items() if name in only},
        "steps_computed": invocation.steps_computed,
        "states_measured": len(invocation.measured_s),
    }


@contextmanager
def _tracking(
    run: Run, stages: Collection[str], display: Display, *, wanted: bool = True
) -> Iterator[tuple[Tracker, bool]]:
    """The run's trackers, where they are wanted and no other process has them; and whether so.

    ``stages`` are those of this process.
    """
    end = time.monotonic() + (TRACKER_WAIT_S if wanted else 0.0)
    folder = run.folder.path / "tracking"
    with awaited_lease(folder, lambda _: None, lambda: time.monotonic() >= end) as guard:
        tracks = wanted and guard is not None
        tracker = open_tracker(run, stages, display.note) if tracks else Trackers(())
        failed = True
        try:
            yield tracker, tracks
            failed = False
        except Interrupted:
            tracker.preempting()
            raise
        finally:
            tracker.finish(failed=failed)


def _conclude(invocation: Invocation, summary: Json, tracker: Tracker) -> RunReport:
    """Draw and track what came of a run whose stages are all finished."""
    folder = invocation.folder.path
    report = report_of(invocation, summary)
    write_picture(report, folder / PICTURE)
    write_page(report, folder / PAGE)
    _track_outcome(tracker, invocation, summary, report)
    tracker.picture("report", folder / PICTURE)
    return report


def open_tracker(run: Run, stages: Collection[str], note: Callable[[str], None]) -> Tracker:
    """The trackers that a run's configuration asks for, as one, in a process with ``stages``."""
    config, folder = run.config, run.folder
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
            name=display_name(config, run.source.name),
            group=settings.group or config.sweep.name,
            job_type=job_type(stages),
            tags=tags(config, run.source.name),
            config=mirrored_config(config, folder.path),
            mode=settings.mode,
        )
        trackers.append(WandbTracker(mirror, note))
    return Trackers(trackers)


def _track_outcome(
    tracker: Tracker, invocation: Invocation, summary: Json, report: RunReport
) -> None:
    values: dict[str, Any] = {
        name: summary[name]
        for name in ("ratio_percent", "params", "total_params", "steps", "ppl", "dense_ppl")
        if summary[name] is not None
    }
    for which, evaluation in report.evaluation.items():
        values |= evaluation_metrics(which, evaluation.ppl, evaluation.tasks)
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
