"""SLURM passes the tests of every executor."""

from collections.abc import Iterator

import pytest
from cluster_support import SMALL, Cluster, wait_for
from support_executors import JobSuite, inputs, undisturbed

__all__ = ["inputs", "undisturbed"]

pytestmark = pytest.mark.xdist_group("slurm: launches")  # one SLURM serves all of them


class TestSlurm(JobSuite):
    executor = "slurm"
    chosen_by = SMALL

    @pytest.fixture(autouse=True)
    def environment(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """This process's launches go to the cluster, and leave nothing there."""
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, cluster.environment[name])
        yield
        for job_id in cluster.queue():
            cluster.run("scancel", job_id)
        wait_for(lambda: not cluster.queue())
