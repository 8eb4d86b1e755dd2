"""A study on a real SLURM goes on where it was, with the same proposals and the same front."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster_support import LAUNCH, Place, run, wait_for

from pipeline.store.leases import holder_of
from pipeline.studies.reading import searches
from pipeline.studies.record import read

pytestmark = pytest.mark.xdist_group("slurm: launches")  # one SLURM serves all of them

SEARCH = (
    "-m", "+sweep=pareto", "sweep.name=killed", "study.runs=4", "study.population=2",
    "study.space.prune.target_ratio={low: 25, high: 35}", "~study.space.prune.distribution",
    "+study.space.prune.weight_reorder.choices=[true,false]", "prune.distribution=[0,80,20]",
)  # fmt: skip


def trials(place: Place) -> list[dict[str, Any]]:
    path = place.folder / "outputs/sweeps/killed/study.json"
    return (
        list(json.loads(path.read_text())["studies"]["killed"]["trials"]) if path.exists() else []
    )


def coordinator(place: Place) -> int:
    leases = place.folder / "outputs/sweeps/killed/coordinator/leases"
    return int(json.loads(max(leases.glob("*.json")).read_text())["pid"])


def is_killed(pid: int) -> bool:
    """Whether a process was there to be killed."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def front(place: Place) -> list[int]:
    ((label, record),) = read(place.folder / "outputs/sweeps/killed").items()
    (report,) = searches({label: record}, [])
    return [run.number for run in report.front]


def test_a_study_goes_on_after_its_coordinator_and_a_job_are_killed(
    place: Place, evaluated: list[str], tmp_path: Path
) -> None:
    process = place.start(*SEARCH, *evaluated)
    wait_for(lambda: place.steps() and place.processes(), poll_s=0.02)
    before = trials(place)
    os.kill(coordinator(place), signal.SIGKILL)
    killed = [pid for pid in place.processes() if is_killed(pid)]
    process.communicate(timeout=60)
    assert killed
    assert [trial["state"] for trial in before] == ["proposed"] * 2
    wait_for(lambda: holder_of(place.folder / "outputs/sweeps/killed/coordinator") is None)
    wait_for(lambda: place.cluster is None or place.cluster.queue() == [])
    place.launch(*SEARCH, *evaluated)
    after = trials(place)
    assert [trial["values"] for trial in after[:2]] == [trial["values"] for trial in before]
    assert [trial["state"] for trial in after] == ["done"] * 4

    here = Place(tmp_path / "here", place.arguments)
    here.folder.mkdir()
    flag, *chosen = SEARCH
    command = [sys.executable, str(LAUNCH), flag, *place.arguments, *chosen, *evaluated]
    run(command, cwd=here.folder)
    assert [trial["values"] for trial in after] == [trial["values"] for trial in trials(here)]
    assert front(place) == front(here)
