"""A run in this process: tracked while it goes on, drawn when it is done."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from pipeline.errors import LeaseLostError
from pipeline.files import mended
from pipeline.plan.run import Run
from pipeline.pruning.state import PruningState
from pipeline.report.data import MODELS, RunReport
from pipeline.report.output import write_report
from pipeline.report.table import dense_and_pruned_table
from pipeline.runs.display import Display
from pipeline.runs.exports import facts, publish_exports
from pipeline.runs.interruption import Interrupted
from pipeline.runs.naming import display_name, job_type, mirrored_config, tags
from pipeline.runs.outcome import report_of
from pipeline.runs.parts import work_of_jobs
from pipeline.runs.runner import StageRunner
from pipeline.runs.tables import tables_of
from pipeline.store.folders import SWEEPS, runs_of
from pipeline.store.leases import awaited_lease
from pipeline.store.run_folder import TRACKING
from pipeline.store.summary import Summary, Work
from pipeline.tracking.metrics import evaluation_metrics, export_metrics
from pipeline.tracking.tracker import LocalTracker, Tracker, Trackers
from pipeline.tracking.wandb_session import WandbRun
from pipeline.tracking.wandb_tracker import WandbTracker

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader

PICTURE_FORMAT = "png"
PICTURE, PAGE = f"report.{PICTURE_FORMAT}", "report.html"
DECIDED = ("pruning_config.json", "steps.jsonl")
T = TypeVar("T")
OnWork = Callable[[Work], None]
"""Is given what this process computed, whether or not it came to its end."""


def run_all(run: Run, display: Display, leader: "Leader | None" = None) -> RunReport:
    """Run a plan, then draw and track what came of it. Raises what a stage raises."""
    work = Work()

    def attempt() -> RunReport:
        nonlocal work
        with _tracking(run, run.plan.by_name, display) as tracker:
            runner = StageRunner(run, display, tracker, leader=leader, before=work)
            try:
                summary = runner.run()
            finally:
                work = runner.work()
            return _conclude(run, runner, summary, tracker)

    return _until_whole(run, display, attempt)


def show_end(run: Run, report: RunReport, console: Console) -> None:
    """Print the table of a run that is finished, and where everything is."""
    console.print(dense_and_pruned_table(report))
    show_places(run.folder.path, console)
    show_exports(run, console)


def show_places(folder: Path, console: Console) -> None:
    """Print where a finished run and its report are."""
    shown = [name for name in (PICTURE, PAGE) if (folder / name).exists()]
    for name in ("", *shown):
        console.print(f"{'see' if name else 'done'}: {folder / name}")


def show_exports(run: Run, console: Console) -> None:
    """Print where the exported models are, and what is known of each."""
    for planned, exported in run.exports:
        console.print(f"model: {exported}")
        for fact in facts(run.store.finished(planned) or {}):
            console.print(f"  {fact}")


def run_part(
    run: Run,
    only: Collection[str],
    display: Display,
    on_work: OnWork,
    leader: "Leader | None" = None,
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

    mended(run.folder.check_files, display.warning)
    tells_steps = any(run.plan.by_name[name].stage.tells_steps for name in only)

    def attempt() -> bool:
        with _tracking(run, only, display) if tells_steps else nullcontext(Trackers(())) as tracker:
            runner = StageRunner(run, display, tracker, only, leader, work)
            summary = _run_among_others(run, runner, keep)
            is_complete = run.is_complete
            if is_complete and tells_steps:
                _conclude(run, runner, summary, tracker)
        return is_complete

    is_complete = _until_whole(run, display, attempt)
    if is_complete and not tells_steps:
        conclude(run, display, work, only)


def conclude(
    run: Run, display: Display, before: Work | None = None, only: Collection[str] = ()
) -> None:
    """Bring the results of a run's finished stages into its folder, and draw and track them.

    ``before`` and ``only`` are what this process has computed of it, and which stages.
    """
    mended(run.folder.check_files, display.warning)

    def attempt() -> None:
        with _tracking(run, only or run.plan.by_name, display) as tracker:
            runner = StageRunner(run, display, tracker, frozenset(), before=before)
            summary = _run_among_others(run, runner, lambda _: None)
            _conclude(run, runner, summary, tracker)

    _until_whole(run, display, attempt)


def needs_conclusion(run: Run) -> bool:
    """Whether every stage is finished, and the run's folder does not say so yet."""
    if not run.is_complete:
        return False
    summary = Summary.read(run.folder.path)
    keys = {name: stage.key for name, stage in run.plan.by_name.items()}
    told = {name: entry.key for name, entry in summary.stages.items()} if summary else {}
    return summary is None or summary.status != "done" or told != keys


def _until_whole(run: Run, display: Display, attempt: Callable[[], T]) -> T:
    """What ``attempt`` gives; it is made again where somebody deleted the run's folder meanwhile.

    What was computed is in the store, so another attempt only writes the folder again, whole.
    """
    while True:
        run.folder.watch()
        try:
            result = attempt()
        except FileNotFoundError:
            if not run.folder.was_deleted:
                raise
        else:
            if not run.folder.was_deleted:
                return result
        display.warning(f"{run.folder.path} was deleted while its run went on; it is written again")


def _run_among_others(run: Run, runner: StageRunner, on_work: OnWork) -> Summary:
    """Run the runner's stages; the summary has what other jobs of the run did, too."""
    try:
        summary, status = runner.run(), "done" if run.is_complete else "running"
    except LeaseLostError:
        raise
    except BaseException as error:
        on_work(runner.work())
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        if written := Summary.read(run.folder.path):
            _write_whole(run, written, status)
        raise
    on_work(runner.work())
    return _write_whole(run, summary, status)


def _write_whole(run: Run, summary: Summary, status: str) -> Summary:
    whole = summary.plus(work_of_jobs(run, summary.stages)).with_status(status)
    whole.write(run.folder.path)
    return whole


@contextmanager
def _tracking(run: Run, stages: Collection[str], display: Display) -> Iterator[Tracker]:
    """The run's trackers, after waiting for another process that has them.

    ``stages`` are those of this process.
    """
    folder = run.folder.path

    def tell(holder: str) -> None:
        display.note(f"waiting: {holder} tracks {folder}")

    with awaited_lease(folder / TRACKING, tell):
        tracker = open_tracker(run, stages, display.note)
        failed = True
        try:
            yield tracker
            failed = False
        except Interrupted:
            tracker.preempting()
            raise
        except Exception as error:
            _alert(run, tracker, "failed", str(error) or type(error).__name__)
            raise
        finally:
            tracker.finish(failed=failed)


def _conclude(run: Run, runner: StageRunner, summary: Summary, tracker: Tracker) -> RunReport:
    """Draw and track what came of a run whose stages are all finished."""
    folder = run.folder.path
    report = report_of(run, runner.listener, summary)
    exports_show = [PICTURE_FORMAT] if run.exports else []
    write_report(report, folder, list(dict.fromkeys([*run.config.run.pictures, *exports_show])))
    exported = publish_exports(run, report)
    _track_outcome(tracker, summary, report)
    if (folder / PICTURE).exists():
        tracker.picture("report", folder / PICTURE)
    if (folder / PAGE).exists():
        tracker.page("page", folder / PAGE)
    decided = [folder / name for name in DECIDED if (folder / name).exists()]
    tracker.files(f"{folder.name}-decisions", decided)
    for each in exported:
        tracker.model(each)
    if ended := _ended_sweep(run):
        _alert(run, tracker, f"sweep {run.config.sweep.name} is done", ended)
    return report


def alert_afterwards(run: Run, what: str, text: str, note: Callable[[str], None]) -> None:
    """Tell the user, where that is wanted, by a run that is finished.

    Its other trackers have nothing to tell, and would begin anew.
    """
    if run.config.tracking.name == "wandb":
        with awaited_lease(run.folder.path / TRACKING, lambda _: None):
            mirror = open_mirror(run, run.plan.by_name, note)
            _alert(run, mirror, what, text)
            mirror.finish(failed=False)


def _alert(run: Run, tracker: Tracker, what: str, text: str) -> None:
    """Tell the user, where that is wanted."""
    if run.config.tracking.alerts:
        tracker.alert(f"{run.folder.path.name}: {what}", text)


def _ended_sweep(run: Run) -> str | None:
    """What became of the sweep, in words, where this run was the last of it to be done.

    None in a study: whoever conducts it knows whether more runs come.
    """
    if run.config.sweep.name is None or run.config.sweep.trial is not None:
        return None
    paths = runs_of(SWEEPS / run.config.sweep.name)
    summaries = [Summary.read(path) for path in paths]
    if not all(summary and summary.status == "done" for summary in summaries):
        return None
    return f"{len(paths)} runs; see: multipruner compare {run.config.sweep.name}"


def open_tracker(run: Run, stages: Collection[str], note: Callable[[str], None]) -> Tracker:
    """The trackers that a run's configuration asks for, as one, in a process with ``stages``."""
    name = run.config.tracking.name
    trackers: list[Tracker] = []
    if name != "none":
        trackers.append(LocalTracker(run.folder.path / "metrics.jsonl"))
    if name == "wandb":
        trackers.append(open_mirror(run, stages, note))
    return Trackers(trackers)


def open_mirror(run: Run, stages: Collection[str], note: Callable[[str], None]) -> Tracker:
    """The run in W&B."""
    config, folder, settings = run.config, run.folder, run.config.tracking
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
    return WandbTracker(mirror, note)


def _track_outcome(tracker: Tracker, summary: Summary, report: RunReport) -> None:
    facts = summary.model_dump(
        include={"ratio_percent", "params", "total_params", "steps", "ppl", "dense_ppl"},
        exclude_none=True,
    )
    if report.shape.has_mixtures:
        dense = PruningState.dense(report.shape)
        facts["active_params"] = report.state.active_params
        facts["total_active_params"] = dense.active_params
    for evaluated in report.evaluations[:1]:
        for side in MODELS:
            facts |= evaluation_metrics(side, evaluated.of(side))
    for target, result in summary.exports.items():
        facts |= export_metrics(target, result)
    tracker.summary(facts)
    for name, (columns, rows) in tables_of(report).items():
        tracker.table(name, columns, rows)
