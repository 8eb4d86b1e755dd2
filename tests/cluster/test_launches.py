"""What is launched on a real SLURM ends as if it had run in one process."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import pytest
from cluster_support import Place, assert_same_steps, wait_for

pytestmark = pytest.mark.xdist_group("slurm: launches")  # one SLURM serves all of them


def test_a_chain_of_jobs_gives_what_one_process_gives(
    fresh_place: Place, undisturbed: Place, evaluated: list[str]
) -> None:
    place = fresh_place
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = place.start("score.enabled=true", *evaluated)
    out, errors = process.communicate(timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # its own time, whatever else the machine does meanwhile
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    assert process.returncode == 0, errors
    assert "multipruner status" in out
    place.finish()
    results = place.results()
    dense, _, steps = results["metrics.jsonl"].partition(b"\n")
    assert json.loads(dense)["prune/step"] == 0  # the sensitivity knows its perplexity
    assert results | {"metrics.jsonl": steps} == undisturbed.results()
    assert place.evaluation() == undisturbed.evaluation()
    (told,) = json.loads(place.multipruner("status", "--json", str(place.run)))
    assert (told["state"], told["stages"][0]["job_id"]) == ("done", None)
    wait_for(lambda: place.cluster.queue() == [], 5)
    summary = json.loads((place.run / "summary.json").read_text())
    assert summary["status"] == "done"
    assert {name: entry["status"] for name, entry in summary["stages"].items()} == {
        "calibrate": "reused", "score": "new", "prune": "new", "evaluate": "new"
    }  # fmt: skip
    assert (place.run / "report.html").exists()
    prune = next((place.folder / "outputs/store/stages/prune").glob("*/provenance.json"))
    made = json.loads(prune.read_text())
    assert made["slurm"]["SLURM_JOB_ID"]
    assert made["packages"]["torch"]
    assert len(made["code"]["revision"]) == 40
    assert "nothing to submit" in place.launch("score.enabled=true", *evaluated)


def test_a_failing_stage_cancels_what_needs_it_and_says_its_own_error(
    place: Place, evaluated: list[str]
) -> None:
    place.launch("prune.target_ratio=99.9", *evaluated)
    wait_for(lambda: place.state == "failed")
    wait_for(lambda: place.stages["evaluate"]["state"] == "cancelled", 10)
    stages = place.stages
    assert "prune.target_ratio=99.9 cannot be reached" in stages["prune"]["reason"]
    assert stages["prune"]["job_state"] == "FAILED"
    assert stages["evaluate"]["state"] == "cancelled"
    assert stages["evaluate"]["reason"] == "prune, which it needs, failed"
    wait_for(lambda: place.cluster.queue() == [], 5)
    assert "cannot be reached" in place.multipruner("logs", str(place.run), "prune")


def test_a_retry_submits_what_failed_and_what_needed_it(
    place: Place, undisturbed: Place, evaluated: list[str]
) -> None:
    switch = place.folder / "switch"
    setup = f"cluster.stages.prune.setup=[test -e {switch} || exit 7]"
    place.launch(setup, *evaluated)
    wait_for(lambda: place.state == "failed" and place.cluster.queue() == [])
    wait_for(lambda: "with status 7" in place.stages["prune"]["reason"])
    switch.touch()
    place.multipruner("retry", str(place.run))
    place.finish()
    tries = {name: stage["attempts"] for name, stage in place.stages.items()}
    assert tries == {"calibrate": 0, "prune": 2, "evaluate": 2}
    assert place.results() == undisturbed.results()


def with_rank(place: Place) -> dict[int, int]:
    """The processes of a job, by their rank."""
    found = {}
    for pid in place.processes():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        (rank,) = (v for v in variables if v.startswith(b"SLURM_PROCID="))
        found[int(rank.partition(b"=")[2])] = pid
    return found


def test_the_tasks_of_a_job_share_the_candidates(place: Place, undisturbed: Place) -> None:
    place.launch("cluster.stages.prune.tasks_per_node=2")
    with place.held():
        assert sorted(with_rank(place)) == [0, 1]
    place.finish()
    assert_same_steps(place, undisturbed)


def test_a_dead_rank_ends_the_job(place: Place) -> None:
    place.launch("cluster.stages.prune.tasks_per_node=2")
    with place.held():
        os.kill(with_rank(place)[1], signal.SIGKILL)
    wait_for(lambda: place.state == "failed", 60)
    wait_for(lambda: not place.processes(), 10)


def test_what_runs_of_a_sweep_share_is_one_job(place: Place) -> None:
    told = place.launch(
        "-m", "prune.target_ratio=15,30", "prune.distribution=[100,0,0]", "sweep.name=two"
    )
    assert "3 jobs submitted" in told  # calibrate is done
    wait_for(lambda: place.cluster.queue() == [])
    stands = json.loads(place.multipruner("status", "two", "--json"))
    assert [run["state"] for run in stands] == ["done", "done"]
    jobs = {
        name: {
            stage["job_id"] for run in stands for stage in run["stages"] if stage["stage"] == name
        }
        for name in ("blocks", "prune")
    }
    assert {name: len(ids) for name, ids in jobs.items()} == {"blocks": 1, "prune": 2}
    shorter, longer = sorted(run["steps"] for run in stands)
    assert 0 < shorter < longer == place.steps()


def test_cancel_ends_the_whole_chain(place: Place, evaluated: list[str]) -> None:
    place.launch(*evaluated)
    with place.held():
        place.multipruner("cancel", str(place.run))
    wait_for(lambda: place.cluster.queue() == [] and not place.processes())
    assert {name: stage["state"] for name, stage in place.stages.items()} == {
        "calibrate": "done",
        "prune": "cancelled",
        "evaluate": "cancelled",
    }
    assert "nothing of this run alone" in place.multipruner("cancel", str(place.run))


def test_two_launches_at_once_end_in_one_set_of_jobs(place: Place, evaluated: list[str]) -> None:
    later = "cluster.parameters.begin=now+1hour"
    both = [place.start(*evaluated, later), place.start(*evaluated, later)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("nothing to submit" in out for out, _ in outputs) == [False, True]
    assert len(place.cluster.queue()) == 2


def test_a_job_whose_id_was_not_recorded_is_found_again(place: Place) -> None:
    place.launch("cluster.parameters.begin=now+1hour")
    job = place.job("prune")
    for path in place.folder.glob("outputs/store/submissions/*/job.json"):
        path.unlink()
    assert "nothing to submit" in place.launch("cluster.parameters.begin=now+1hour")
    assert place.job("prune") == job
    assert len(place.cluster.queue()) == 1


def test_an_id_that_slurm_gave_to_another_job_is_noticed(place: Place) -> None:
    place.launch("cluster.parameters.begin=now+1hour")
    job = place.job("prune")
    place.cluster.run("scontrol", "update", f"jobid={job}", "name=somebody-elses")
    assert place.stages["prune"]["state"] == "failed"
    assert f"SLURM has no job {job} of this run" in place.stages["prune"]["reason"]


def test_a_sweep_is_one_plan_with_an_array(place: Place) -> None:
    started = time.monotonic()
    later = "cluster.parameters.begin=now+1hour"
    out = place.launch("-m", "prune.target_ratio=10,20", "cluster.array_parallelism=1", later)
    assert time.monotonic() - started < 20
    assert "3 jobs submitted" in out  # the blocks of both runs, and the array
    runs = sorted((place.folder / "outputs/runs").iterdir())
    told = json.loads(place.multipruner("status", "--json", *map(str, runs)))
    ids = {stage["job_id"] for run in told for stage in run["stages"] if stage["stage"] == "prune"}
    assert len({job.partition("_")[0] for job in ids}) == 1
    assert {job.partition("_")[2] for job in ids} == {"0", "1"}
    array = place.cluster.run("squeue", "-h", "-o", "%i")
    assert "%1]" in array
    for run in runs:
        place.multipruner("cancel", str(run))
    wait_for(lambda: not place.cluster.queue(), 20)


def test_a_plan_writes_nothing(place: Place) -> None:
    before = sorted(place.folder.rglob("*"))
    plan = json.loads(place.launch("plan=json", "cluster.stages.prune.timeout_min=7"))
    assert sorted(place.folder.rglob("*")) == before
    assert place.cluster.queue() == []
    assert {entry["stage"]: entry["plan"] for entry in plan["stages"]} == {
        "calibrate": "done",
        "prune": "new",
    }
    assert [entry["resources"]["timeout_min"] for entry in plan["stages"]] == [24 * 60, 7]


def test_everything_that_the_cluster_does_not_have_is_named(place: Place) -> None:
    before = sorted(place.folder.rglob("*"))
    told = place.launch(
        "cluster.partition=a100",
        "cluster.gpu_type=h100",
        "cluster.stages.prune.gpus=9",
        "cluster.qos=urgent",
        "cluster.parameters.nicee=3",
        status=2,
    )
    assert "cluster.partition: 'a100' is not there; allowed is one of" in told
    assert "cluster.gpu_type: no node of any partition has GPUs of type 'h100'" in told
    assert "cluster.qos: 'urgent' is not there; allowed is one of normal" in told
    assert "cluster.parameters.nicee: sbatch has no such option" in told
    assert sorted(place.folder.rglob("*")) == before
    told = place.launch("cluster.partition=abrupt", "cluster.timeout_min=61", status=2)
    assert "cluster.timeout_min: 61 is longer than partition abrupt allows" in told


def test_values_never_reach_a_shell(place: Place) -> None:
    mark = place.folder / "mark"
    place.launch(f'cluster.parameters.comment="$(touch {mark})\'; touch {mark}"')
    wait_for(lambda: place.steps() > 0)
    assert not mark.exists()
    told = place.launch(f'cluster.account="x\n touch {mark}"', status=2)
    assert "cluster.account" in told
