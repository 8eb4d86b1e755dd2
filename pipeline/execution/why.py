"""Why stages are what they are: what each waits for, failed of, or differs in from what is done."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.execution.run import Run, launched_from
from pipeline.execution.run_folder import flat
from pipeline.execution.status import StageStatus, of_run
from pipeline.execution.store import Stage, Store
from pipeline.files import read_json


def explain(path: Path) -> Iterator[str]:
    """A line for each stage of a run, and under it what its key differs in."""
    states = {status.stage: status for status in of_run(path)}
    with launched_from(path.absolute()):
        run = Run.open(path)
        for stage in run.plan.stages:
            status = states.get(stage.name)
            if status is None or status.key != stage.key:
                yield (
                    f"{stage.name}: its files have changed since the launch: it is "
                    f"{stage.key} now and was {status.key if status else 'not there'}"
                )
            else:
                yield _line(run.store, stage, status)
            if run.store.finished(stage) is None:
                yield from _nearest(run.store, stage)


def _line(store: Store, stage: Stage, status: StageStatus) -> str:
    where = f" (job {status.job_id})" if status.job_id else ""
    if status.state == "done":
        try:
            made = read_json(store.folder(stage) / "provenance.json")
            where = f", finished {made['finished']} on {made['host']}"
        except FileNotFoundError:
            where = ""
    return f"{stage.name}: {status.state}{where}" + (f": {status.reason}" if status.reason else "")


def _nearest(store: Store, stage: Stage) -> Iterator[str]:
    """In what this stage differs from the finished one of its kind that is most like it."""
    ours = flat(stage.recipe)
    nearest: tuple[int, str, dict[str, Any]] | None = None
    for done in sorted((store.root / "stages" / stage.name).glob("*/done.json")):
        theirs = flat(read_json(done.parent / "recipe.json"))
        differ = {
            key: (theirs.get(key), ours.get(key))
            for key in sorted({*ours, *theirs})
            if theirs.get(key) != ours.get(key)
        }
        if nearest is None or len(differ) < nearest[0]:
            nearest = len(differ), done.parent.name, differ
    if nearest:
        yield f"  the nearest finished {stage.name} is {nearest[1]}; it differs in"
        for key, (there, here) in nearest[2].items():
            yield f"    {key}: {there!r} there, {here!r} here"
