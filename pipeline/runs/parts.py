"""The summary of a run whose stages ran in several jobs: their parts added up."""

from collections.abc import Mapping
from typing import Any

from pipeline.executors.submission import attempts
from pipeline.files import Json
from pipeline.plan.run import Run

COUNTED = ("steps_computed", "states_measured")


def of_all_jobs(run: Run, summary: Json, before: Mapping[str, Json]) -> dict[str, Any]:
    """``summary``, with what the run's other jobs told of themselves, and this one ``before``."""
    told = [*(end for name in summary["stages"] for end in _ends(run, name)), before]
    stages = {name: dict(entry) for name, entry in summary["stages"].items()}
    for end in told:
        for name, theirs in end.get("stages", {}).items():
            entry = stages[name]
            if entry["status"] == "reused" and theirs["status"] == "new":
                entry["status"] = "new"
            for count in ("seconds", "candidates_scored"):
                entry[count] = round(entry[count] + theirs[count], 3)
    whole = {name: summary[name] + sum(e.get(name, 0) for e in told) for name in COUNTED}
    scored = sum(entry["candidates_scored"] for entry in stages.values())
    return {**summary, **whole, "stages": stages, "candidates_scored": scored}


def _ends(run: Run, name: str) -> list[dict[str, Any]]:
    """What the jobs of a stage told at their ends, those that another run submitted left out."""
    mine = str(run.folder.path.absolute())
    tries = attempts(run.store.folder(run.plan.by_name[name]))
    return [
        end
        for attempt in tries
        if attempt.submission.task(attempt.index).run == mine
        for end in attempt.submission.ends(attempt.index)
        if name in end.get("stages", {})
    ]
