"""A run in this process: tracked while it goes on, drawn when it is done."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from pipeline.distributed.ranks import Leader
from pipeline.errors import LeaseLostError
from pipeline.plan.run import Run
from pipeline.report.data import RunReport
from pipeline.report.output import write_report
from pipeline.report.table import dense_and_pruned_table
from pipeline.runs.display import Display
from pipeline.runs.interruption import Interrupted
from pipeline.runs.naming import display_name, job_type, mirrored_config, tags
from pipeline.runs.outcome import report_of
from pipeline.runs.parts import work_of_jobs
from pipeline.runs.runner import StageRunner
from pipeline.store.leases import awaited_lease
from pipeline.store.summary import Summary, Work
from pipeline.tracking.metrics import evaluation_metrics
from pipeline.tracking.tracker import LocalTracker, Tracker, Trackers
from pipeline.tracking.wandb_session import WandbRun
from pipeline.tracking.wandb_tracker import WandbTracker

PICTURE, PAGE = "report.png", "report.html"
TRACKER_WAIT_S = 30.0
CANDIDATE_COLUMNS = ("step", "unit", "layer", "width_after", "ppl")
OnWork = Callable[[Work], None]
"""Is given what this process computed, whether or not it came to its end."""


def run_all(run: Run, display: Display, console: Console, leader: Leader | None = None) -> Summary:
    """Run a plan, then draw and track what came of it. Raises what a stage raises."""
    folder = run.folder
    with _tracking(run, run.plan.by_name, display) as (tracker, _):
        runner = StageRunner(run, display, tracker, leader=leader)
        summary = runner.run()
        report = _conclude(run, runner, summary, tracker)
    console.print(dense_and_pruned_table(report))
    for name in ("", PICTURE, PAGE):
        console.print(f"{'see' if name else 'done'}: {folder.path / name}")
    return summary


def run_part(
    run: Run,
    only: Collection[str],
    display: Display,
    on_work: OnWork,
    leader: Leader | None = None,
) -> None:
    """Run some stages of a run in this process, and conclude the run if they were the last.

    One process at a time tracks the run: the one that takes its steps, and at last the one that
    concludes it.
    """
    work = Work()

    def keep(computed: Work) -> None:
        nonlocal work
        work = computed
        on_work(computed)

    tells_steps = any(run.plan.by_name[name].stage.tells_steps for name in only)
    with _tracking(run, only, display, wanted=tells_steps) as (tracker, tracks):
        runner = StageRunner(run, display, tracker, only, leader)
        summary = _run_among_others(run, runner, keep)
        is_complete = run.is_complete
        if is_complete and tracks:
            _conclude(run, runner, summary, tracker)
    if is_complete and not tracks:
        conclude(run, display, work, only)


def conclude(
    run: Run, display: Display, before: Work | None = None, only: Collection[str] = ()
) -> None:
    """Bring the results of a run's finished stages into its folder, and draw and track them.

    ``before`` and ``only`` are what this process has computed of it, and which stages.
    """
    with _tracking(run, only or run.plan.by_name, display) as (tracker, _):
        runner = StageRunner(run, display, tracker, frozenset())
        summary = _run_among_others(run, runner, lambda _: None, [before] if before else [])
        _conclude(run, runner, summary, tracker)


def needs_conclusion(run: Run) -> bool:
    """Whether every stage is finished, and the run's folder does not say so yet."""
    if not run.is_complete:
        return False
    summary = Summary.read(run.folder.path)
    return (
        summary is None or summary.status != "done" or set(summary.stages) != set(run.plan.by_name)
    )


def _run_among_others(
    run: Run, runner: StageRunner, on_work: OnWork, before: Sequence[Work] = ()
) -> Summary:
    """Run the runner's stages; the summary has what other jobs of the run did, too."""
    try:
        summary, status = runner.run(), "done" if run.is_complete else "running"
    except LeaseLostError:
        raise
    except BaseException as error:
        on_work(runner.work())
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        _write_whole(run, Summary.read(run.folder.path), before, status)
        raise
    on_work(runner.work())
    return _write_whole(run, summary, before, status)


def _write_whole(run: Run, summary: Summary | None, before: Sequence[Work], status: str) -> Summary:
    assert summary is not None, "the runner has written it"
    whole = summary.plus([*work_of_jobs(run, summary.stages), *before]).with_status(status)
    whole.write(run.folder.path)
    return whole


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


def _conclude(run: Run, runner: StageRunner, summary: Summary, tracker: Tracker) -> RunReport:
    """Draw and track what came of a run whose stages are all finished."""
    folder = run.folder.path
    report = report_of(run, runner.listener, summary)
    write_report(report, folder)
    _track_outcome(tracker, runner, summary, report)
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
            job_type=job_type([run.plan.by_name[name] for name in stages]),
            tags=tags(config, run.source.name),
            config=mirrored_config(config, folder.path),
            mode=settings.mode,
        )
        trackers.append(WandbTracker(mirror, note))
    return Trackers(trackers)


def _track_outcome(
    tracker: Tracker, runner: StageRunner, summary: Summary, report: RunReport
) -> None:
    facts = summary.model_dump(
        include={"ratio_percent", "params", "total_params", "steps", "ppl", "dense_ppl"},
        exclude_none=True,
    )
    for which, evaluation in report.evaluation.items():
        facts |= evaluation_metrics(which, evaluation.ppl, evaluation.tasks)
    tracker.summary(facts)
    tracker.table(
        "candidates",
        CANDIDATE_COLUMNS,
        [
            (step.step + 1, *s.candidate.to_json().values(), s.score)
            for step in runner.listener.steps
            for s in step.decision.scored
        ],
    )
