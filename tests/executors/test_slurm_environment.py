"""What SLURM tells a process of its job by variables, and what becomes of it."""

import os
from pathlib import Path

import pytest

from pipeline import executors
from pipeline.executors.slurm.environment import address_of, current_job, first_host, ranks
from pipeline.store.processes import JOB_VARIABLE, NO_JOB
from pipeline.store.processes import current_job as announced_job

JOB = {
    "SLURM_CLUSTER_NAME": "big",
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "prune-0a1b",
    "SLURMD_NODENAME": "n7",
    "SLURM_CPUS_PER_TASK": "4",
}


def test_a_job_is_known_by_more_than_its_id() -> None:
    job = current_job(JOB)
    assert job is not None
    assert (job.id, job.submission_id, job.index, job.restart) == ("12", "12", 0, 0)
    assert (job.identity, job.node) == ("big 12 prune-0a1b", "n7")
    assert job.variables["SLURM_CPUS_PER_TASK"] == "4"


def test_a_job_of_an_array_knows_its_place() -> None:
    array = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    job = current_job(JOB | array)
    assert job is not None
    assert (job.id, job.submission_id, job.index, job.restart) == ("12", "11", 3, 2)


def test_outside_of_a_job_there_is_none() -> None:
    assert current_job({"SLURM_CONF": "/etc/slurm.conf"}) is None


def test_the_job_that_a_program_starts_in_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "of the program that started this one")
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    executors.announce_job(os.environ)
    assert announced_job() == NO_JOB
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    executors.announce_job(os.environ)
    assert announced_job() == current_job(os.environ)
    assert announced_job().scheduler == "slurm"


def test_the_tasks_of_a_step_are_ranks() -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert ranks(batch) is None
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NODELIST": "localhost,gpu[07-08]",
    }
    place = ranks(batch | step)
    assert place is not None
    assert (place.rank, place.size, place.local_rank, place.local_size) == (2, 4, 0, 2)
    assert place.init_method.startswith("tcp://localhost:")
    again = ranks(batch | step | {"SLURM_RESTART_COUNT": "1"})
    assert again is not None
    assert again.init_method != place.init_method
    assert ranks(batch | step | {"SLURM_STEP_NUM_TASKS": "1"}) is None


def test_tasks_of_one_node_need_no_name_of_it() -> None:
    place = ranks({
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "no-host-has-this-name",
    })  # fmt: skip
    assert place is not None
    assert place.init_method.startswith("tcp://127.0.0.1:")


def test_a_name_that_is_no_host_is_looked_up_in_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert address_of("localhost") == "localhost"
    assert address_of("no-host-has-this-name") == "no-host-has-this-name"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho NodeName=$4 Arch=x86_64 NodeAddr=10.0.0.7 Port=1\n")
    scontrol.chmod(0o755)
    assert address_of("no-host-has-this-name") == "10.0.0.7"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node", "node"),
        ("a1,a2", "a1"),
        ("node[01-03,5]", "node01"),
        ("n[3,7]-ib,x", "n3-ib"),
        ("a-b[1-2]", "a-b1"),
    ],
)
def test_the_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
