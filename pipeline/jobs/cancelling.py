"""Ending a run's jobs: running, waiting and requeued ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.executors import executor_named
from pipeline.executors.submission import Attempt, now, only_submitter, runs_that_want
from pipeline.files import encode, replace
from pipeline.jobs.status import LIVE, StagePlace, StageStatus, of_places, places
from pipeline.store.run_folder import CANCELLED


def cancel(run: Path, note: Callable[[str], None]) -> None:
    """End what a run has pending and running, and say what was done.

    A launch that is on its way is waited for: what it submits is cancelled, too. The wish is
    written first: a job that is just starting, or being requeued, or that runs where it cannot be
    reached from here, ends by itself. A stage that another run wants as well goes on; the last of
    them to be cancelled ends it.
    """
    stages = places(run)
    with only_submitter(stages[0].store, note):
        replace(run / CANCELLED, encode({"time": now()}))
        for line in _end(run, stages):
            note(line)


def _end(run: Path, stages: list[StagePlace]) -> Iterator[str]:
    states = of_places(stages)
    ending: list[tuple[StageStatus, Attempt]] = []
    for place in reversed(stages):
        status = states[place.key]
        attempt = status.attempt
        if attempt is None or status.state not in (*LIVE, "unknown"):
            continue
        if other := _wanted_elsewhere(place, run):
            yield f"{place.name}: job {status.job_id} goes on, {other} wants it, too"
            continue
        attempt.submission.cancel(attempt.index)
        ending.append((status, attempt))
    reached: dict[Attempt, bool] = {}
    for status, attempt in ending:
        if attempt not in reached:
            executor = executor_named(attempt.submission.executor)
            reached[attempt] = executor.cancel(attempt.submission, attempt.index)
        yield f"{status.stage}: {_outcome(status, reached[attempt])}"
    if not ending:
        yield "nothing of this run alone is pending or running"


def _outcome(status: StageStatus, was_reached: bool) -> str:
    job = f"job {status.job_id}" if status.job_id else "its job"
    if was_reached:
        return f"{job} cancelled"
    where = status.node or "another machine"
    return f"{job} on {where} has no signal from here; it ends at its start or its next step"


def _wanted_elsewhere(place: StagePlace, run: Path) -> str | None:
    """The name of another run that wants a stage and was not cancelled."""
    others = runs_that_want(place.folder) - {run.absolute()}
    living = (o for o in others if (o / "launch.json").exists() and not (o / CANCELLED).exists())
    return next((other.name for other in living), None)
