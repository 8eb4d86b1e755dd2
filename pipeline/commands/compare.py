"""Runs to compare: found by folder or name, read, and asked how they stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.executors.status import of_runs, run_state
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.records import ComparedRun, missing_run, one_line, read_run
from pipeline.store.folders import RUNS, SWEEPS, entries_of, sweep_folder

OUT = Path("outputs/comparison")
MOST_NAMED = 10


def gather(targets: Sequence[str], out: Path | None) -> tuple[Comparison, Path]:
    """The runs of sweeps and runs, and the folder for what is written of them.

    Raises ``ConfigError`` where a target is neither, or no run is finished.
    """
    sweeps = {target: folder for target in targets if (folder := sweep_folder(target))}
    found: dict[Path, ComparedRun] = {}
    for target in targets:
        runs = _runs_of(sweeps[target]) if target in sweeps else [_run(target)]
        found |= {Path(run.folder).resolve(): run for run in runs}
    compared = _with_states(list(found.values()))
    if not any(run.is_done for run in compared):
        raise ConfigError(_none_finished(compared))
    alone = sweeps[targets[0]] if len(targets) == 1 and sweeps else None
    name = alone.resolve().name if alone else _name(compared)
    return Comparison(name, tuple(compared)), out or alone or OUT


def _name(runs: Sequence[ComparedRun]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs"


def _runs_of(sweep: Path) -> list[ComparedRun]:
    try:
        listed = [(Path(entry["run"]), entry.get("overrides", ())) for entry in entries_of(sweep)]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            [f"{sweep / 'sweep.json'}: cannot be read; launch the sweep again"]
        ) from error
    if not listed:
        raise ConfigError([f"{sweep}: the sweep has no runs; launch it again"])
    runs = []
    for path, overrides in listed:
        moved = sweep.resolve().parent.parent / "runs" / path.name
        there = next((each for each in (path, moved) if (each / "run.json").exists()), None)
        runs.append(read_run(there) if there else missing_run(path, overrides))
    return runs


def _run(target: str) -> ComparedRun:
    for path in (Path(target), RUNS / target):
        if (path / "run.json").exists():
            return read_run(path)
    what = "is a folder, but of no run or sweep" if Path(target).is_dir() else "there is none here"
    raise ConfigError([f"{target}: {what}; {_known()}"])


def _known() -> str:
    """What there is to compare."""
    told = [
        f"{kind}: {', '.join(names[:MOST_NAMED])}{', ...' if len(names) > MOST_NAMED else ''}"
        for kind, names in (
            ("sweeps", sorted(path.parent.name for path in SWEEPS.glob("*/sweep.json"))),
            ("runs", sorted(path.parent.name for path in RUNS.glob("*/run.json"))),
        )
        if names
    ]
    if told:
        return f"there are {'; '.join(told)}"
    return f"there are no sweeps and no runs in {Path.cwd()}; give folders, or launch a sweep first"


def _with_states(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """With how those stand that a cluster may still be running. SLURM is asked once."""
    asked = [run for run in runs if _is_open(run)]
    told = dict(zip([run.folder for run in asked], _states(asked), strict=True))
    return [_told_of(run, told) for run in runs]


def _is_open(run: ComparedRun) -> bool:
    on_cluster = run.settings.get("cluster.name") not in (None, "inline")
    is_launched = (Path(run.folder) / "launch.json").exists()
    return on_cluster and is_launched and not run.is_done and run.state != "missing"


def _states(runs: Iterable[ComparedRun]) -> list[tuple[str, str | None]]:
    told: list[tuple[str, str | None]] = []
    for states in of_runs(Path(run.folder) for run in runs):
        reasons = [status.reason for status in states if status.state == run_state(states)]
        told.append((run_state(states), next((one_line(r) for r in reasons if r), None)))
    return told


def _told_of(run: ComparedRun, told: Mapping[str, tuple[str, str | None]]) -> ComparedRun:
    state, reason = told.get(run.folder, (run.state, None))
    if run.is_done or run.folder not in told or state == "done":
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
