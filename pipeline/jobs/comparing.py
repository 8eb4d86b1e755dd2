"""Finished runs of sweeps and folders as one comparison: gathered, drawn and shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipeline.errors import MOST_NAMED, ConfigError, DamagedError
from pipeline.executors import find_executor
from pipeline.files import understood
from pipeline.jobs.checking import units_of_run
from pipeline.jobs.status import of_runs, run_state
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.records import ComparedRun, missing_run, one_line, read_run
from pipeline.report.compare.study import SearchReport
from pipeline.store.folders import RUNS, SWEEPS, entries_of, sweep_folder

OUT = Path("outputs/comparison")
UNREAD = ("missing", "damaged")
"""States of runs of which nothing is known."""


def show(comparison: Comparison, console: Console, written: Iterable[Path]) -> None:
    """Print tables and answers, and which files were written."""
    from pipeline.report.compare.ranking import ranking_table
    from pipeline.report.compare.seeds import seeds_table
    from pipeline.report.compare.study import front_table
    from pipeline.report.compare.table import runs_tables

    for table in runs_tables(comparison.name, comparison.runs, console.width):
        console.print(table)
    if comparison.seeds:
        console.print(seeds_table(comparison.seeds))
    if comparison.rankings:
        console.print(ranking_table(comparison.rankings))
    for search in comparison.searches:
        if search.front:
            console.print(front_table(search))
    for answer in comparison.answers:
        console.print(f"{answer.question}: {answer.text}", soft_wrap=True)
    for path in written:
        console.print(f"see: {path}", soft_wrap=True)


def gather(
    targets: Sequence[str], out: Path | None, workload: str | None = None
) -> tuple[Comparison, Path]:
    """The runs of sweeps and runs, and the folder for what is written of them.

    Raises ``ConfigError`` where a target is neither, no run is finished, or none timed that.
    """
    sweeps = {target: folder for target in targets if (folder := sweep_folder(target))}
    by_folder: dict[Path, ComparedRun] = {}
    for target in targets:
        runs = _runs_of(sweeps[target]) if target in sweeps else [_run(target)]
        by_folder |= {Path(run.folder).resolve(): run for run in runs}
    compared = _with_states(list(by_folder.values()))
    if not any(run.is_done for run in compared):
        raise ConfigError(_none_finished(compared))
    alone = sweeps[targets[0]] if len(targets) == 1 and sweeps else None
    name = alone.resolve().name if alone else _name(compared)
    comparison = Comparison(name, tuple(compared), workload, _searches(sweeps.values(), compared))
    timed = comparison.workloads
    if workload is not None and workload not in timed:
        known = f"allowed is {', '.join(timed)}" if timed else "add probe=latency to the launch"
        raise ConfigError([f"--workload: {workload!r} was not timed in these runs; {known}"])
    return comparison, out or alone or OUT


def _searches(sweeps: Iterable[Path], runs: Sequence[ComparedRun]) -> tuple[SearchReport, ...]:
    """The searches that sweeps are. Raises ``ConfigError`` for one that cannot be read."""
    from pipeline.studies.reading import searches
    from pipeline.studies.record import read

    found: list[SearchReport] = []
    for sweep in sweeps:
        try:
            found += searches(read(sweep), runs)
        except DamagedError as damage:
            raise ConfigError([f"{damage}; launch the study again"]) from damage
    return tuple(found)


def _name(runs: Sequence[ComparedRun]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs"


def _runs_of(sweep: Path) -> list[ComparedRun]:
    try:
        listed = [(Path(entry["run"]), entry.get("overrides", ())) for entry in entries_of(sweep)]
    except (DamagedError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            [f"{sweep / 'sweep.json'}: cannot be read; launch the sweep again"]
        ) from error
    if not listed:
        raise ConfigError([f"{sweep}: the sweep has no runs; launch it again"])
    runs = []
    for path, overrides in listed:
        moved = sweep.resolve().parent.parent / "runs" / path.name
        there = next((each for each in (path, moved) if (each / "run.json").exists()), None)
        runs.append(_read(there, overrides) if there else missing_run(path, overrides))
    return runs


def _run(target: str) -> ComparedRun:
    for path in (Path(target), RUNS / target):
        if (path / "run.json").exists():
            return _read(path, ())
    reason = (
        "is a folder, but of no run or sweep" if Path(target).is_dir() else "there is none here"
    )
    raise ConfigError([f"{target}: {reason}; {_known()}"])


def _read(folder: Path, overrides: Sequence[str]) -> ComparedRun:
    """A run; one of which a file is damaged is listed with it, and nothing of it is believed."""
    damage = next((each for unit in units_of_run(folder) for each in unit.damages()), None)
    if damage is None:
        try:
            return understood(folder, lambda: read_run(folder))
        except DamagedError as error:
            damage = error
    return replace(missing_run(folder, overrides), state="damaged", error=str(damage))


def _known() -> str:
    """What there is to compare."""
    kinds = [
        f"{kind}: {', '.join(names[:MOST_NAMED])}{', ...' if len(names) > MOST_NAMED else ''}"
        for kind, names in (
            ("sweeps", sorted(path.parent.name for path in SWEEPS.glob("*/sweep.json"))),
            ("runs", sorted(path.parent.name for path in RUNS.glob("*/run.json"))),
        )
        if names
    ]
    if kinds:
        return f"there are {'; '.join(kinds)}"
    return f"there are no sweeps and no runs in {Path.cwd()}; give folders, or launch a sweep first"


Standing = tuple[str, str | None]
"""A run's state, and the reason for it."""


def _with_states(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """With how those stand that may still be running elsewhere. Each executor is asked once."""
    asked = [run for run in runs if _is_open(run)]
    standings = dict(zip([run.folder for run in asked], _standings(asked), strict=True))
    return [_standing(run, standings) for run in runs]


def _is_open(run: ComparedRun) -> bool:
    executor = find_executor(run.settings.get("cluster.name", ""))
    is_elsewhere = executor is not None and not executor.is_here
    is_launched = (Path(run.folder) / "launch.json").exists()
    return is_elsewhere and is_launched and not run.is_done and run.state not in UNREAD


def _standings(runs: Iterable[ComparedRun]) -> list[Standing]:
    standings: list[Standing] = []
    for states in of_runs(Path(run.folder) for run in runs):
        reasons = [status.reason for status in states if status.state == run_state(states)]
        standings.append((run_state(states), next((one_line(r) for r in reasons if r), None)))
    return standings


def _standing(run: ComparedRun, standings: Mapping[str, Standing]) -> ComparedRun:
    state, reason = standings.get(run.folder, (run.state, None))
    if run.is_done or run.folder not in standings or state == "done":
        # stages may all be done before somebody wrote what came of them into the run's folder
        return run
    return replace(run, state=state, error=run.error if state == "failed" and run.error else reason)


def _none_finished(runs: Sequence[ComparedRun]) -> list[str]:
    states = [f"{run.name}: {run.state}{f' ({run.error})' if run.error else ''}" for run in runs]
    shown = states[:MOST_NAMED]
    if len(states) > len(shown):
        shown.append(f"and {len(states) - len(shown)} more")
    return [
        "no run is finished, so there is nothing to compare yet; see how they stand with: "
        "multipruner status",
        *shown,
    ]
