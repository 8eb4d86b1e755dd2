"""What a configuration asks for is held against what SLURM says that it has."""

import pytest
from support_inputs import configured

from pipeline.executors.slurm import resources as cluster
from pipeline.executors.slurm.resources import Cluster

PARTITIONS = """\
PartitionName=a100 AllowAccounts=nlp,vision AllowQos=ALL Default=YES MaxNodes=2 MaxTime=1-02:30:00 State=UP
PartitionName=old AllowAccounts=ALL AllowQos=ALL Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED State=DOWN
"""  # noqa: E501
NODES = """\
NodeName=g1 CPUTot=64 CPUEfctv=62 AvailableFeatures=ib,nvme Gres=gpu:a100:4(S:0-1),gpu:mig:7 NodeHostName=g1 RealMemory=512000 Partitions=a100
NodeName=c1 CPUTot=32 AvailableFeatures=(null) Gres=(null) NodeHostName=c1 RealMemory=64000 Partitions=old
"""  # noqa: E501
ANSWERS = {
    ("scontrol", "show", "partition"): PARTITIONS,
    ("scontrol", "show", "node"): NODES,
    ("scontrol", "show", "config"): "AccountingStorageEnforce = associations,limits\n",
    ("sacctmgr", "-nP", "show", "assoc"): "nlp\nnlp\n",
    ("sacctmgr", "-nP", "show", "account"): "nlp\nroot\nvision\n",
    ("sacctmgr", "-nP", "show", "qos"): "normal\nlong\n",
    ("sbatch", "--help"): "  --nice[=value]\n  --exclude=hosts\n  --time=minutes\n",
}


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*command: str) -> str | None:
        found = (text for start, text in ANSWERS.items() if command[: len(start)] == start)
        return next(found, None)

    monkeypatch.setattr(cluster, "ask", ask)
    cluster._problems.cache_clear()


def problems(*overrides: str) -> list[str]:
    return cluster.problems(configured("cluster=slurm", *overrides).cluster)


def test_what_the_cluster_has_is_accepted() -> None:
    asked = ["cluster.account=nlp", "cluster.gpus=4", "cluster.gpu_type=a100", "cluster.qos=long"]
    more = ["++cluster.parameters.exclude=g7", "cluster.timeout_min=1590", "cluster.constraint=ib"]
    assert problems(*asked, *more) == []


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cluster.partition=h100", "cluster.partition: 'h100' is not there; allowed is one of"),
        ("cluster.partition=old", "cluster.partition: 'old' is not up"),
        ("cluster.timeout_min=1591", "cluster.timeout_min: 1591 is longer than partition a100"),
        ("cluster.gpu_type=h100", "cluster.gpu_type: no node of partition a100 has GPUs of type"),
        ("cluster.gpus=12", "cluster.gpus: no node of partition a100 has 12; allowed is up to"),
        ("cluster.cpus=63", "cluster.cpus: no node of partition a100 has 63 CPUs"),
        ("cluster.mem_gb=501", "cluster.mem_gb: no node of partition a100 has 501"),
        ("cluster.nodes=2", "cluster.nodes: 2 is more than partition a100 gives"),
        ("cluster.constraint=hdr", "the feature 'hdr'; allowed is one of ib, nvme"),
        ("cluster.account=vision", "may not use 'vision'; allowed is one of nlp"),
        ("cluster.account=bio", "cluster.account: 'bio' is not there; allowed is one of nlp"),
        ("cluster.qos=short", "cluster.qos: 'short' is not there; allowed is one of normal, long"),
        ("++cluster.parameters.nicee=1", "sbatch has no such option; allowed is one of exclude"),
        ("++cluster.parameters.time=1", "cluster.parameters.time: is set by cluster.timeout_min"),
        (
            "++cluster.stages.prune.gpus=12",
            "cluster.stages.prune.gpus: no node of partition a100 has 12",
        ),
    ],
)  # fmt: skip
def test_what_it_does_not_have_is_named_with_what_it_has(override: str, told: str) -> None:
    assert any(told in problem for problem in problems(override)), problems(override)


def test_of_several_partitions_one_that_can_run_the_job_is_enough() -> None:
    assert problems("cluster.partition='a100,old'", "cluster.gpus=1") == []
    (told,) = problems("cluster.partition='a100,h100'", "cluster.gpus=1")
    assert told.startswith("cluster.partition: 'h100' is not there")
    told, other, *_ = problems("cluster.partition='a100,old'", "cluster.gpus=12")
    assert "no node of partition a100 has 12" in told
    assert "'old' is not up" in other


def test_all_problems_come_at_once() -> None:
    assert len(problems("cluster.partition=x", "cluster.account=y", "cluster.gpu_type=z")) == 3


def test_what_is_left_open_comes_from_the_partition() -> None:
    asked = configured("cluster=slurm", "cluster.gpu_type=a100", "cluster.gpus=2").cluster
    read = Cluster.read()
    assert read
    completed = read.completed(asked.of_stage("prune"))
    assert completed.timeout_min == 24 * 60
    assert completed.mem_gb == pytest.approx(2 / 11 * 512000 / 1024, rel=1e-3)


def test_what_is_left_open_suits_all_partitions_that_may_run_the_job() -> None:
    shared = ["cluster.partition='a100,old'", "cluster.gpus=0", "cluster.cpus=1"]
    asked = configured("cluster=slurm", *shared).cluster
    read = Cluster.read()
    assert read
    completed = read.completed(asked.of_stage("calibrate"))
    assert completed.mem_gb == pytest.approx(64000 / 32 / 1024, rel=1e-3)
