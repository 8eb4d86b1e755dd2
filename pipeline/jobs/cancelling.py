"""Ending a run's jobs: running, waiting and requeued ones."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.executors import executor_named
from pipeline.executors.submission import now, runs_that_want
from pipeline.files import encode, replace
from pipeline.jobs.status import LIVE, StagePlace, of_places, places
from pipeline.store.run_folder import CANCELLED


def cancel(run: Path) -> Iterator[str]:
    """End what a run has pending and running, and say what was done.

    The wish is written first: a job that is just starting, or being requeued, ends by itself. A
    stage that another run wants as well goes on; the last of them to be cancelled ends it.
    """
    replace(run / CANCELLED, encode({"time": now()}))
    stages = places(run)
    states = of_places(stages)
    wanted = {place.key: _wanted_elsewhere(place, run) for place in stages}
    ended = False
    for place in reversed(stages):
        status = states[place.key]
        attempt = status.attempt
        if attempt is None or status.state not in (*LIVE, "unknown"):
            continue
        if other := wanted.get(place.key):
            yield f"{place.name}: job {status.job_id} goes on, {other} wants it, too"
            continue
        attempt.submission.cancel(attempt.index)
        executor = executor_named(attempt.submission.executor)
        executor.cancel(attempt.submission, attempt.index)
        ended = True
        yield f"{place.name}: job {status.job_id} cancelled"
    if not ended:
        yield "nothing of this run alone is pending or running"


def _wanted_elsewhere(place: StagePlace, run: Path) -> str | None:
    """The name of another run that wants a stage and was not cancelled."""
    others = runs_that_want(place.folder) - {run.absolute()}
    living = (o for o in others if (o / "launch.json").exists() and not (o / CANCELLED).exists())
    return next((other.name for other in living), None)
