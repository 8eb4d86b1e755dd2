"""multipruner why: what each stage waits for, failed of, or differs in from what is done."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.base import RUN, Command, run_folder
from pipeline.config.schema import decisive
from pipeline.errors import DamagedError
from pipeline.jobs.status import StageStatus, of_run, places
from pipeline.settings.flat import flat
from pipeline.store.results import provenance_in, recipe_in

if TYPE_CHECKING:
    from pipeline.stages.base import PlannedStage
    from pipeline.store.results import Store


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", nargs="+", help=RUN)


def _run(parsed: Namespace) -> None:
    folders = [run_folder(name) for name in parsed.run]
    for line in explain(folders[0]) if len(folders) == 1 else differences(folders):
        print(line)


def explain(path: Path) -> Iterator[str]:
    """A line for each stage of a run, and under it what its key differs in."""
    from pipeline.plan.run import Run, launched_from

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


def _line(store: "Store", stage: "PlannedStage", status: StageStatus) -> str:
    where = f" (job {status.job_id})" if status.job_id else ""
    if status.state == "done":
        try:
            made = provenance_in(store.folder(stage)) or {}
            where = f", finished {made['finished']} on {made['host']}" if made else ""
        except DamagedError as damage:
            where = f" ({damage})"
    return f"{stage.name}: {status.state}{where}" + (f": {status.reason}" if status.reason else "")


def differences(paths: Sequence[Path]) -> Iterator[str]:
    """In which keys runs differ, and in which stages; of a stage, which keys of its recipe."""
    runs = {path: _Facts.of(path) for path in paths}
    first, *others = runs
    for other in others:
        yield f"{other.name} against {first.name}"
        yield from _differing("  configuration: ", runs[first].settings, runs[other].settings)
        for name in dict.fromkeys([*runs[first].stages, *runs[other].stages]):
            mine, theirs = runs[first].stages.get(name), runs[other].stages.get(name)
            if mine is None or theirs is None:
                yield f"  {name}: only in {(first if mine else other).name}"
            elif mine == theirs:
                yield f"  {name}: the same, {mine.name}"
            else:
                yield f"  {name}: {mine.name} there, {theirs.name} here; they differ in"
                yield from _differing("    ", _recipe(mine), _recipe(theirs))


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


def _differing(start: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key):
            yield f"{start}{key}: {there.get(key)!r} there, {here.get(key)!r} here"


def _nearest(store: "Store", stage: "PlannedStage") -> Iterator[str]:
    """In what this stage differs from the finished one of its kind that is most like it."""
    ours = flat(stage.recipe)
    nearest: tuple[int, str, list[str]] | None = None
    for done in sorted((store.root / "stages" / stage.name).glob("*/done.json")):
        try:
            recipe = recipe_in(done.parent) or {}
        except DamagedError:
            continue
        differ = list(_differing("    ", flat(recipe), ours))
        if nearest is None or len(differ) < nearest[0]:
            nearest = len(differ), done.parent.name, differ
    if nearest:
        yield f"  the nearest finished {stage.name} is {nearest[1]}; it differs in"
        yield from nearest[2]


COMMAND = Command(
    "why",
    "why each stage runs, fails or is new; of two runs, in what they differ",
    _arguments,
    _run,
)
