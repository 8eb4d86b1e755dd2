"""Ending a run's jobs: running, waiting and requeued ones."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from pipeline.executors.slurm import client as slurm
from pipeline.executors.slurm.client import ClusterError
from pipeline.executors.status import LIVE, StagePlace, of_places, places
from pipeline.executors.submission import Attempt, now, runs_that_want
from pipeline.files import encode, read_json, replace
from pipeline.store.run_folder import CANCELLED


def cancel(run: Path) -> Iterator[str]:
    """End what a run has pending and running, and say what was done.

    The wish is written first: a job that is just starting, or being requeued, ends by itself. A
    stage that another run wants as well goes on; the last of them to be cancelled ends it.
    """
    replace(run / CANCELLED, encode({"time": now()}))
    found = places(run)
    states = of_places(found)
    wanted = {place.key: _wanted_elsewhere(place, run) for place in found}
    ended = False
    for place in reversed(found):
        status = states[place.key]
        attempt = status.attempt
        if attempt is None or status.state not in (*LIVE, "unknown"):
            continue
        if other := wanted.get(place.key):
            yield f"{place.name}: job {status.job_id} goes on, {other} wants it, too"
            continue
        _end(attempt, place)
        ended = True
        yield f"{place.name}: job {status.job_id} cancelled"
    if not ended:
        yield "nothing of this run alone is pending or running"


def _end(attempt: Attempt, place: StagePlace) -> None:
    submission = attempt.submission
    submission.cancel(attempt.index)
    if submission.intent["cluster"] == "local":
        holder = read_json(submission.folder / "job.json")["holder"]
        os.kill(holder["pid"], signal.SIGTERM)
        return
    job_id = submission.job_id_of(attempt.index)
    if job_id is None or not slurm.cancel([job_id]):
        raise ClusterError(
            f"SLURM did not take the cancellation of {place.name}; it ends by itself when it "
            "starts. Type the same again when squeue works"
        )


def _wanted_elsewhere(place: StagePlace, run: Path) -> str | None:
    """The name of another run that wants a stage and was not cancelled."""
    others = runs_that_want(place.folder) - {run.absolute()}
    living = (o for o in others if (o / "launch.json").exists() and not (o / CANCELLED).exists())
    return next((other.name for other in living), None)
