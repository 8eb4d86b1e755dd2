"""One real SLURM for the session, and runs on it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_support import LAUNCH, Cluster, Place, run

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
PARTITIONS = """\
PartitionName=abrupt Nodes=ALL MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.slurm)


def started(name: str, lines: str = "", **settings: str) -> Iterator[Cluster]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [program for program in NEEDED if not shutil.which(program, path=path)]
    if missing or os.getuid() != 0:
        pytest.skip(
            f"SLURM's programs are not here ({', '.join(missing)})" if missing
            else "starting a SLURM needs root"
        )  # fmt: skip
    state = Path(tempfile.mkdtemp(prefix=f"slurm-{name}-"))  # its sockets need a short path
    (state / "etc").mkdir()
    (state / "etc" / "local.conf").write_text(PARTITIONS + lines)
    environment = os.environ | settings
    try:
        run([str(HERE / "slurm-up"), str(state)], env=environment)
        yield Cluster(state)
    finally:
        subprocess.run([str(HERE / "slurm-down"), "--wipe", str(state)], check=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    accounting = all(shutil.which(p, path=path) for p in ("slurmdbd", "mariadbd"))
    yield from started("full", ACCOUNTING=str(int(accounting)))


@pytest.fixture(scope="module")
def cluster_without_accounting() -> Iterator[Cluster]:
    unwarned = "SlurmctldParameters=idle_on_node_suspend\n"  # in place of preempt_send_user_signal
    yield from started("bare", unwarned, ACCOUNTING="0")


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A model of 10 layers whose pruning takes dozens of steps."""
    from support_executors import write_inputs

    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments with which the pruned model is evaluated, too."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("It was a dark and stormy night. " * 20, encoding="utf-8")
    return [f"evaluate.text={text}", "evaluate.seqlen=32"]


@pytest.fixture(scope="session")
def undisturbed(
    arguments: list[str],
    evaluated: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    python: str,
) -> Place:
    """The same run in one process, that nothing happened to."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), arguments)
    run([python, str(LAUNCH), *arguments, *evaluated], cwd=place.folder)
    return place


@pytest.fixture
def fresh_place(
    cluster: Cluster, arguments: list[str], undisturbed: Place, tmp_path: Path
) -> Iterator[Place]:
    """A folder to launch from, where calibrate is done. Its jobs do not outlive the test."""
    yield from cluster.place(tmp_path, arguments, undisturbed)


@pytest.fixture
def place(warm: None, fresh_place: Place) -> Place:
    """The same; its processes need not import what others have imported."""
    return fresh_place


@pytest.fixture
def bare_place(
    cluster_without_accounting: Cluster,
    arguments: list[str],
    undisturbed: Place,
    tmp_path: Path,
    warm: None,
) -> Iterator[Place]:
    yield from cluster_without_accounting.place(tmp_path, arguments, undisturbed)
