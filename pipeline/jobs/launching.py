"""From prepared runs to jobs, in the words that a person reads."""

import json
import os
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import StageError
from pipeline.executors import executor_named
from pipeline.files import mended
from pipeline.jobs.apart import run_apart
from pipeline.jobs.following import follow, wait_for
from pipeline.jobs.status import of_runs, run_state
from pipeline.jobs.submit import Work, completed, submit, survey
from pipeline.jobs.sweeping import compare, formats_of, run_each
from pipeline.jobs.sweeping import run_here as run_sweep_here
from pipeline.plan.forecast import Forecast
from pipeline.plan.run import Run
from pipeline.plan.sweep import Sweep, varying
from pipeline.runs.display import Quiet, display_on
from pipeline.settings.core import Config
from pipeline.store.run_folder import CANCELLED

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader
    from pipeline.report.data import RunReport


def carry_out(
    runs: Sequence[Run],
    console: Console,
    sweep: Sweep | None = None,
    leader: "Leader | None" = None,
) -> None:
    """Show what the runs would do, do it here, or have an executor do it: as they say.

    ``sweep`` is what the runs are part of; ``leader`` has the ranks that share the scoring here.
    """
    if runs[0].config.plan:
        show(runs, console, sweep)
    elif not executor_named(runs[0].config.cluster.name).is_here:
        launch(runs, console, sweep)
    elif sweep:
        run_sweep_here(sweep, partial(_run_among_others, console=console, leader=leader), console)
    else:
        run_here(runs[0], console, leader)


def run_here(run: Run, console: Console, leader: "Leader | None" = None) -> None:
    """Run a run in this process, and show what came of it."""
    from pipeline.runs.session import show_end

    show_end(run, _report_of(run, console, leader), console)


def _run_among_others(run: Run, console: Console, leader: "Leader | None") -> str:
    """Run a run in this process; what came of it, in a line."""
    from pipeline.report.table import in_a_line

    return f"{in_a_line(_report_of(run, console, leader))}: {run.folder.path}"


def _report_of(run: Run, console: Console, leader: "Leader | None") -> "RunReport":
    from pipeline.runs.session import run_all

    mended(run.claim, Quiet(console).warning)
    return run_all(run, display_on(console, run.config.prune.target_ratio), leader)


def go_offline(configs: Iterable[Config]) -> None:
    """Tell the hub's libraries, those too that were imported already."""
    if any(config.cluster.is_offline for config in configs):
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        for name in ("huggingface_hub.constants", "datasets.config"):
            if module := sys.modules.get(name):
                setattr(module, "HF_HUB_OFFLINE", True)  # noqa: B010 - read whenever it is asked for


def launch(runs: Sequence[Run], console: Console, sweep: Sweep | None = None) -> None:
    """Submit what is missing, and follow it where ``wait`` says so. ``sweep`` has the runs."""
    jobs = _submitted(runs, console, sweep)
    paths = [run.folder.path for run in runs]
    for run, states in zip(runs, of_runs(paths), strict=True):
        shown = ", ".join(
            f"{s.stage} {s.state}{f' (job {s.job_id})' if s.job_id and s.state != 'done' else ''}"
            for s in states
        )
        console.print(f"{run.folder.path}: {shown}")
    console.print(f"{jobs} jobs submitted" if jobs else "nothing to submit")
    name = shlex.quote(str(sweep.folder if sweep else runs[0].folder.path))
    if runs[0].config.wait:
        follow(paths, console)
        if sweep and any(run_state(states) == "done" for states in of_runs(paths)):
            compare(sweep.folder, formats_of(runs), console)
        ends = zip(paths, of_runs(paths), strict=True)
        if failed := [path for path, states in ends if run_state(states) != "done"]:
            raise StageError(f"not finished; see: multipruner status {failed[0]}")
        return
    console.print(
        f"next: multipruner status {name}",
        f"      multipruner compare {name}" if sweep else f"      multipruner logs {name} -f",
        f"      multipruner cancel {name}",
        sep="\n",
    )  # fmt: skip


def _submitted(runs: Sequence[Run], console: Console, sweep: Sweep | None) -> int:
    """Submit what is missing; the number of jobs."""
    if sweep:
        mended(sweep.claim, Quiet(console).warning)
    executor = executor_named(runs[0].config.cluster.name)
    for warning in executor.warnings(runs[0].store.root):
        console.print(f"warning: {warning}")
    submissions = submit(runs, console.print)
    _conclude_open(runs, console)
    return sum(submission.tasks for submission in submissions)


def _conclude_open(runs: Sequence[Run], console: Console) -> None:
    """Conclude runs of which other runs had all stages."""
    from pipeline.runs.session import conclude, needs_conclusion

    for run in runs:
        if needs_conclusion(run):
            conclude(run, Quiet(console))


def carry_through(
    sweep: Sweep,
    console: Console,
    leader: "Leader | None" = None,
    apart: Collection[Path] = (),
) -> dict[Path, str]:
    """Have all runs done, here or by an executor, and wait for their end.

    Those of the folders ``apart`` are done in processes of their own here, too.

    Returns what runs failed of, by their folders. Raises ``StageError`` where they were cancelled.
    """
    runs = sweep.runs
    if executor_named(runs[0].config.cluster.name).is_here:
        here = partial(_run_among_others, console=console, leader=leader)

        def one(run: Run) -> str:
            return run_apart(run, console) if run.folder.path in apart else here(run)

        return run_each(sweep, one, console)
    console.print(f"{_submitted(runs, console, sweep)} jobs submitted")
    paths = [run.folder.path for run in runs]
    wait_for(paths, console)
    _conclude_open(runs, console)
    errors: dict[Path, str] = {}
    for path, states in zip(paths, of_runs(paths), strict=True):
        if (path / CANCELLED).exists():
            raise StageError(f"{path} was cancelled; the same command goes on with it")
        state = run_state(states)
        if state != "done":
            reasons = [each.reason for each in states if each.state == state and each.reason]
            errors[path] = reasons[0] if reasons else state
        console.print(f"{path}: {errors.get(path, state)}")
    return errors


def show(runs: Sequence[Run], console: Console, sweep: Sweep | None = None) -> None:
    """Print what would run, what is done, what it asks for and costs. Nothing is written."""
    work = completed(survey(runs))
    forecast = Forecast.of(runs)
    for damage in forecast.damaged.values():
        Quiet(console).warning(f"{damage}; it will be decided again")
    for item in work:
        if item.status.damage:
            Quiet(console).warning(f"{item.status.damage}; {item.stage.name} will be done again")
    if runs[0].config.plan == "json":
        console.print(
            json.dumps({"stages": [_entry(item) for item in work], **forecast.to_json()}, indent=1)
        )
        return
    for table in _by_run(work, sweep) if sweep and len(runs) > 1 else [_by_stage(work)]:
        console.print(table)
    new = sum(item.needs_job for item in work)
    shared = sum(_plan_of(item) == "shared" for item in work)
    done = sum(item.status.state == "done" for item in work)
    if by_several := _shared(work):
        console.print(f"done once: {by_several}")
    console.print(
        f"{len(work)} stages: {new} new, {shared} shared, {done} done; nothing was submitted",
        forecast.in_words(), sep="\n",
    )  # fmt: skip


def _by_stage(work: Sequence[Work]) -> Table:
    """Every stage of a run in a row."""
    table = _table("run", "stage", "plan", "needs", "asks for")
    for item in work:
        plan, needs = _plan_of(item), ", ".join(_needs(item))
        asks = _asks_for(item) if plan == "new" else ""
        table.add_row(item.run.folder.path.name, item.stage.name, plan, needs, asks)
    return table


def _by_run(work: Sequence[Work], sweep: Sweep) -> Iterator[Table]:
    """Every run of a sweep in a row, by what varies; then what the jobs of the new stages ask for.

    A stage that several runs need is new in the first of them and shared in the others.
    """
    stages: dict[Path, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    asks: dict[str, list[str]] = defaultdict(list)
    for item in work:
        plan = _plan_of(item)
        stages[item.run.folder.path][plan].append(item.stage.name)
        if plan == "new" and (asked := _asks_for(item)):
            asks[asked].append(item.stage.name)
    values = varying([sweep.overrides[path] for path in stages])
    keys = list(dict.fromkeys(key for each in values for key in each)) or ["run"]
    counted = list(
        dict.fromkeys(plan for each in stages.values() for plan in each if plan != "new")
    )
    runs = _table(*keys, *counted, "new")
    for (path, by_plan), value_of in zip(stages.items(), values, strict=True):
        names = [value_of.get(key, "") for key in keys] if value_of else [path.name]
        counts = [str(len(by_plan[plan])) if plan in by_plan else "" for plan in counted]
        new = by_plan["new"]
        is_whole = len(by_plan) == 1 and len(new) > 1
        runs.add_row(*names, *counts, f"all {len(new)} stages" if is_whole else ", ".join(new))
    yield runs
    if asks:
        table = _table("new stages", "ask for")
        for asked, of in asks.items():
            table.add_row(", ".join(dict.fromkeys(of)), asked)
        yield table


def _shared(work: Sequence[Work]) -> str:
    """Which stages several runs have, and how many runs."""
    runs_of = Counter((item.stage.name, item.stage.key) for item in work)
    names_by: dict[int, list[str]] = defaultdict(list)
    for (name, _), runs in runs_of.items():
        names_by[runs].append(name)
    return "; ".join(
        f"{', '.join(dict.fromkeys(names_by[runs]))} for {runs} runs"
        for runs in sorted(names_by, reverse=True)
        if runs > 1
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table


def _asks_for(item: Work) -> str:
    resources = item.resources.model_dump(mode="json")
    return ", ".join(
        f"{n} {value}" for n, value in resources.items() if value not in (None, [], {})
    )


def _plan_of(item: Work) -> str:
    """What would become of a stage: shared, new, or how it stands."""
    state = item.status.state
    if item.is_shared and state != "done":
        return "shared"
    return "new" if item.needs_job else state


def _needs(item: Work) -> list[str]:
    return [needed.name for needed in item.stage.needs]


def _entry(item: Work) -> dict[str, Any]:
    return {
        "run": str(item.run.folder.path),
        "stage": item.stage.name,
        "key": item.stage.key,
        "plan": _plan_of(item),
        "state": item.status.state,
        "job_id": item.status.job_id,
        "needs": _needs(item),
        "resources": item.resources.model_dump(mode="json"),
    }
