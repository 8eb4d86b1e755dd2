"""From prepared runs to jobs, in the words that a person reads."""

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import StageError
from pipeline.executors import executor_named
from pipeline.files import mended
from pipeline.jobs.following import follow
from pipeline.jobs.status import of_runs, run_state
from pipeline.jobs.submit import Work, completed, submit, survey
from pipeline.plan.forecast import Forecast
from pipeline.plan.run import Run
from pipeline.plan.sweep import Sweep
from pipeline.plan.sweep import run_here as run_sweep_here
from pipeline.runs.display import Quiet, Terminal
from pipeline.settings.core import Config

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader


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
        show(runs, console)
    elif not executor_named(runs[0].config.cluster.name).is_here:
        launch(runs, console, sweep)
    elif sweep:
        run_sweep_here(sweep, partial(run_here, console=console, leader=leader), console)
    else:
        run_here(runs[0], console, leader)


def run_here(run: Run, console: Console, leader: "Leader | None" = None) -> None:
    """Run a run in this process."""
    from pipeline.runs.session import run_all

    mended(run.claim, Quiet(console).warning)
    target = run.config.prune.target_ratio
    display = Terminal(console, target) if console.is_terminal else Quiet(console)
    run_all(run, display, console, leader)


def go_offline(configs: Iterable[Config]) -> None:
    """Tell the hub's libraries, those too that were imported already."""
    if any(config.cluster.is_offline for config in configs):
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        for name in ("huggingface_hub.constants", "datasets.config"):
            if module := sys.modules.get(name):
                setattr(module, "HF_HUB_OFFLINE", True)  # noqa: B010 - read whenever it is asked for


def launch(runs: Sequence[Run], console: Console, sweep: Sweep | None = None) -> None:
    """Submit what is missing, and follow it where ``wait`` says so. ``sweep`` has the runs."""
    from pipeline.runs.session import conclude, needs_conclusion

    if sweep:
        mended(sweep.claim, Quiet(console).warning)
    executor = executor_named(runs[0].config.cluster.name)
    for warning in executor.warnings(runs[0].store.root):
        console.print(f"warning: {warning}")
    submissions = submit(runs, console.print)
    for run in runs:
        if needs_conclusion(run):  # other runs had all of its stages
            conclude(run, Quiet(console))
    jobs = sum(submission.tasks for submission in submissions)
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


def show(runs: Sequence[Run], console: Console) -> None:
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
    table = Table(box=None, header_style="bold")
    for heading in ("run", "stage", "plan", "needs", "asks for"):
        table.add_column(heading)
    for item in work:
        entry = _entry(item)
        asks = ", ".join(
            f"{name} {value}"
            for name, value in entry["resources"].items()
            if value not in (None, [], {})
        )
        table.add_row(
            item.run.folder.path.name, item.stage.name, entry["plan"],
            ", ".join(entry["needs"]), asks if entry["plan"] == "new" else "",
        )  # fmt: skip
    console.print(table)
    new = sum(item.needs_job for item in work)
    shared = sum(_entry(item)["plan"] == "shared" for item in work)
    done = sum(item.status.state == "done" for item in work)
    console.print(
        f"{len(work)} stages: {new} new, {shared} shared, {done} done; nothing was submitted",
        forecast.in_words(), sep="\n",
    )  # fmt: skip


def _entry(item: Work) -> dict[str, Any]:
    state = item.status.state
    plan = "shared" if item.is_shared and state != "done" else "new" if item.needs_job else state
    return {
        "run": str(item.run.folder.path),
        "stage": item.stage.name,
        "key": item.stage.key,
        "plan": plan,
        "state": state,
        "job_id": item.status.job_id,
        "needs": [needed.name for needed in item.stage.needs],
        "resources": item.resources.model_dump(mode="json"),
    }
