"""Every executor passes the same tests; SLURM's are in tests/cluster, where there is one."""

from collections.abc import Iterator

import pytest
from queue_executor import EXECUTOR, Worker
from support_executors import Bench, ExecutorSuite, JobSuite, inputs, undisturbed
from support_inputs import another_schema

from pipeline import executors
from pipeline.errors import ClusterError
from pipeline.executors.submission import Submission, Task

__all__ = ["inputs", "undisturbed"]


@pytest.mark.xdist_group("executor: inline")
class TestInline(ExecutorSuite):
    executor = "inline"
    chosen_by = ("cluster=inline",)

    def test_nothing_is_submitted_to_it(self, bench: Bench) -> None:
        inline, config = executors.executor_named("inline"), bench.prepared().config.cluster
        intent = {"cluster": "inline"}
        submission = Submission.intend(bench.folder, intent, [Task("run", {"prune": "key"})])
        with pytest.raises(ClusterError, match="type its command again"):
            inline.submit(submission, "true", config, config.of_stage("prune"))
        with pytest.raises(ClusterError, match="Ctrl-C"):
            inline.cancel(submission, 0)


@pytest.mark.xdist_group("executor: local")
class TestLocal(JobSuite):
    executor = "local"
    chosen_by = ("cluster=local", "cluster.gpus=0")
    goes_on = False


@pytest.mark.xdist_group("executor: queue")
class TestQueue(JobSuite):
    """An executor that the pipeline does not have: a file, and ``register``."""

    executor = "queue"
    chosen_by = ("cluster.name=queue",)

    @pytest.fixture(autouse=True)
    def worker(self, bench: Bench) -> Iterator[Worker]:
        worker = Worker(bench.folder / "outputs/store/queue")
        yield worker
        worker.close()

    @pytest.fixture(autouse=True)
    def registered(self) -> Iterator[None]:
        executors.register(EXECUTOR)
        with another_schema():
            yield
            executors._known().pop(EXECUTOR.name)
