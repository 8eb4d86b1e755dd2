"""Whatever happens to its jobs, a run on a real SLURM ends as if nothing had happened."""

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cluster_support import Place, assert_same_steps, wait_for
from support_executors import has_been_signalled

pytestmark = pytest.mark.xdist_group("slurm: disturbed")  # one SLURM serves all of them


def preempt(place: Place, until: Callable[[int], bool]) -> None:
    everything = ["-N2", "--exclusive", "-t1", "-o/dev/null", "--wrap=sleep 2"]
    with place.held() as (pid,):
        place.cluster.run("sbatch", "-phigh", *everything)
        wait_for(lambda: until(pid))
    wait_for(lambda: place.stages["prune"]["state"] == "requeued")


def test_a_job_that_is_warned_of_preemption_goes_on(place: Place, undisturbed: Place) -> None:
    place.launch()
    preempt(place, until=lambda pid: has_been_signalled(pid, signal.SIGUSR2))
    job = place.job("prune")
    assert place.steps() > 3
    place.finish()
    assert (place.job("prune"), place.stages["prune"]["restarts"]) == (job, 1)
    assert place.results() == undisturbed.results()
    assert "stopped between two steps by SIGUSR2" in place.multipruner("logs", str(place.run))


def test_without_accounting_and_warning_a_preempted_job_goes_on(
    bare_place: Place, undisturbed: Place
) -> None:
    bare_place.launch("cluster.partition=abrupt")
    preempt(bare_place, until=has_been_signalled)
    bare_place.finish()
    assert bare_place.stages["prune"]["restarts"] == 1
    assert bare_place.results() == undisturbed.results()
    assert "SIGUSR2" not in bare_place.multipruner("logs", str(bare_place.run))


def test_without_accounting_a_killed_job_is_seen(bare_place: Place, evaluated: list[str]) -> None:
    bare_place.launch(*evaluated)
    wait_for(lambda: bare_place.steps() > 1)
    for pid in bare_place.processes():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: bare_place.state == "failed")
    wait_for(lambda: bare_place.stages["evaluate"]["state"] == "cancelled", 10)


def test_a_job_that_an_administrator_requeues_goes_on(place: Place, undisturbed: Place) -> None:
    place.launch()
    with place.held():
        place.cluster.run("scontrol", "requeue", place.job("prune"))
    place.finish()
    assert place.stages["prune"]["restarts"] == 1
    assert place.results() == undisturbed.results()


def test_before_the_time_limit_a_job_is_requeued_and_goes_on(
    place: Place, undisturbed: Place
) -> None:
    place.launch("cluster.timeout_min=1", "cluster.warn_s=15")
    with place.held():  # a long step; SLURM warns within 45 s
        started = datetime.fromisoformat(place.stages["prune"]["started"])
        time.sleep(max(0.0, 46 - (datetime.now(UTC) - started).total_seconds()))
    wait_for(lambda: place.stages["prune"]["restarts"] == 1)
    assert "stopped between two steps by SIGUSR2" in place.multipruner("logs", str(place.run))
    place.finish()
    assert place.results() == undisturbed.results()


def test_the_tasks_of_a_requeued_job_go_on_from_its_steps(place: Place, undisturbed: Place) -> None:
    place.launch("cluster.stages.prune.nodes=2")
    with place.held():
        place.cluster.run("scontrol", "requeue", place.job("prune"))
    place.finish()
    assert place.stages["prune"]["restarts"] == 1
    assert_same_steps(place, undisturbed)


def test_requeues_are_bounded(place: Place) -> None:
    place.launch("cluster.max_requeues=0")
    with place.held():
        place.cluster.run("scontrol", "requeue", place.job("prune"))
    wait_for(lambda: place.state == "failed")
    assert "cluster.max_requeues is 0" in place.stages["prune"]["reason"]
    assert place.stages["prune"]["restarts"] == 1


def test_a_killed_slurmd_takes_no_step_with_it(place: Place, undisturbed: Place) -> None:
    place.launch("cluster.parameters.exclude=n2")
    with place.held():
        os.kill(place.cluster.pid_of("slurmd-n1"), signal.SIGKILL)
        time.sleep(1)
        place.cluster.up()
    place.finish()
    assert place.results() == undisturbed.results()


def test_a_restarted_slurmctld_takes_no_step_with_it(place: Place, undisturbed: Place) -> None:
    place.launch()
    with place.held():
        # it writes down seconds later what it knows; a job that it never wrote down is lost
        written, now = place.cluster.state / "ctld" / "job_state", time.time()
        place.cluster.run("scontrol", "update", f"jobid={place.job('prune')}", "comment=kept")
        wait_for(lambda: written.stat().st_mtime > now, 20)
        os.kill(place.cluster.pid_of("slurmctld"), signal.SIGKILL)
        meanwhile = place.state
        place.cluster.up()
    assert meanwhile == "running"
    place.finish()
    assert place.results() == undisturbed.results()
