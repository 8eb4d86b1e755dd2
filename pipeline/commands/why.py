"""multipruner why: what each stage waits for, failed of, or differs in from what is done."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.base import RUN_OR_SWEEP, Command, run_folders
from pipeline.config.schema import decisive
from pipeline.errors import DamagedError
from pipeline.jobs.status import StageStatus, of_run, places
from pipeline.settings.flat import flat
from pipeline.store.results import provenance_in, recipe_in

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.stages.base import PlannedStage
    from pipeline.store.results import Store


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", nargs="+", help=RUN_OR_SWEEP)


def _run(parsed: Namespace) -> None:
    from pipeline.screen import screen

    console = screen()
    folders = run_folders(parsed.run)
    parts = differences(folders) if len(parsed.run) > 1 else _explained(folders)
    for part in parts:
        console.print(part if isinstance(part, str) else _table(part))


@dataclass(frozen=True, slots=True)
class Rows:
    """A table in the terminal."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


Part = str | Rows
"""A line, or a table below it."""


def _table(part: Rows) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    for column in part.columns:
        table.add_column(Text(column), overflow="fold")
    for row in part.rows:
        table.add_row(*map(Text, row))
    return table


def _explained(paths: Sequence[Path]) -> Iterator[Part]:
    """A run; of a sweep's several each below its name."""
    for path in paths:
        if len(paths) > 1:
            yield f"run {path.name}"
        yield from explain(path)


def explain(path: Path) -> Iterator[Part]:
    """A row for each stage of a run, and what the key of one that is not finished differs in."""
    from pipeline.plan.run import Run, launched_from

    states = {status.stage: status for status in of_run(path)}
    with launched_from(path.absolute()):
        run = Run.open(path)
        rows = [_row(run.store, stage, states.get(stage.name)) for stage in run.plan.stages]
        yield Rows(("stage", "state", "why"), rows)
        for stage in run.plan.stages:
            if run.store.finished(stage) is None:
                yield from _nearest(run.store, stage)


def _row(store: "Store", stage: "PlannedStage", status: StageStatus | None) -> Sequence[str]:
    """Name, state and why of a stage."""
    if status is None or status.key != stage.key:
        was = status.key if status else "not there"
        why = f"its files have changed since the launch: it is {stage.key} now and was {was}"
        return stage.name, "new", why
    where = [f"job {status.job_id}"] if status.job_id else []
    if status.state == "done":
        try:
            made = provenance_in(store.folder(stage)) or {}
            where = [f"finished {made['finished']} on {made['host']}"] if made else []
        except DamagedError as damage:
            where = [str(damage)]
    return stage.name, status.state, ": ".join([*where, *filter(None, [status.reason])])


def differences(paths: Sequence[Path]) -> Iterator[Part]:
    """In which keys runs differ, and in which stages; of a stage, which keys of its recipe."""
    runs = {path: _Facts.of(path) for path in paths}
    first, *others = runs
    for other in others:
        names = first.name, other.name
        yield f"{other.name} against {first.name}"
        settings = _differing(runs[first].settings, runs[other].settings)
        if settings:
            yield Rows(("configuration", *names), settings)
        for name in dict.fromkeys([*runs[first].stages, *runs[other].stages]):
            mine, theirs = runs[first].stages.get(name), runs[other].stages.get(name)
            if mine is None or theirs is None:
                yield f"{name}: only in {(first if mine else other).name}"
            elif mine == theirs:
                yield f"{name}: the same, {mine.name}"
            else:
                keys = (name, mine.name, theirs.name)
                yield Rows(keys, _differing(_recipe(mine), _recipe(theirs)))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a run's folder has of its settings and stages."""

    settings: dict[str, Any]
    stages: dict[str, Path]

    @classmethod
    def of(cls, path: Path) -> "_Facts":
        from pipeline.plan.run import settings_of

        stages = {place.name: place.folder for place in places(path)}
        return cls(decisive(flat(settings_of(path))), stages)


def _recipe(stage_folder: Path) -> dict[str, Any]:
    return flat(recipe_in(stage_folder) or {})


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The keys that differ, with both values."""
    return [
        (key, repr(there.get(key)), repr(here.get(key)))
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def _nearest(store: "Store", stage: "PlannedStage") -> Iterator[Part]:
    """In what this stage differs from the finished one of its kind that is most like it."""
    ours = flat(stage.recipe)
    nearest: tuple[str, list[tuple[str, ...]]] | None = None
    for done in sorted((store.root / "stages" / stage.name).glob("*/done.json")):
        try:
            recipe = recipe_in(done.parent) or {}
        except DamagedError:
            continue
        differ = _differing(flat(recipe), ours)
        if nearest is None or len(differ) < len(nearest[1]):
            nearest = done.parent.name, differ
    if nearest:
        yield f"the nearest finished {stage.name} is {nearest[0]}; it differs in"
        yield Rows((stage.name, "there", "here"), nearest[1])


COMMAND = Command(
    "why",
    "why each stage runs, fails or is new; of several runs, in what they differ",
    _arguments,
    _run,
)
