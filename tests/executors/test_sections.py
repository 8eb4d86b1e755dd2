"""The chosen executor's keys of ``cluster``, and what becomes of keys that only others have."""

import re
from pathlib import Path

import pytest
from support_inputs import REPOSITORY, TINY, configured, problems_of

import pipeline
from pipeline.errors import PipelineError
from pipeline.executors import executor_named, executors, find_executor
from pipeline.files import encode
from pipeline.plan.run import settings_of

OF_SLURM = re.compile(r"\b(SLURM\w*|sbatch|squeue|sacct|sinfo|scontrol|scancel|srun)\b")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ("cluster=inline", "+cluster.gpus=2", "+cluster.timeout_min=5"),
            "cluster.gpus, cluster.timeout_min means nothing in this process; "
            "add cluster=slurm or cluster=local",
        ),
        (
            ("cluster=local", "+cluster.partition=a100"),
            "cluster.partition means nothing for a process of this machine; add cluster=slurm",
        ),
        (
            ("cluster=local", "+cluster.stages.prune.gpus=2"),
            "cluster.stages means nothing for a process of this machine; add cluster=slurm",
        ),
    ],
)
def test_a_key_that_means_nothing_where_the_stages_run_is_refused(
    overrides: tuple[str, ...], told: str
) -> None:
    assert problems_of(lambda: configured(*TINY, *overrides)) == [f"cluster: {told}"]


def test_everything_wrong_with_the_section_is_told_at_once() -> None:
    wrong = ("+cluster.partition=x", "cluster.gpus=-1", "+cluster.gpu=1")
    problems = problems_of(lambda: configured(*TINY, "cluster=local", *wrong, "prune.order=[a]"))
    starts = sorted(problem.partition(":")[0] for problem in problems)
    assert starts == ["cluster", "cluster.gpu", "cluster.gpus", "prune.order[0]"]


def test_an_executor_that_is_not_there_is_named_with_those_that_are() -> None:
    (problem,) = problems_of(lambda: configured(*TINY, "cluster.name=pbs"))
    assert problem == ("cluster.name: 'pbs' is wrong; allowed is 'inline', 'local' or 'slurm'")
    assert find_executor("pbs") is None
    with pytest.raises(PipelineError, match="there is no executor pbs here"):
        executor_named("pbs")


def test_a_folder_of_an_earlier_version_may_have_keys_that_mean_nothing(tmp_path: Path) -> None:
    config = configured(*TINY, "cluster=local", "cluster.gpus=3").model_dump(mode="json")
    config["cluster"] |= {"partition": None, "array_parallelism": 20, "stages": {"prune": {}}}
    (tmp_path / "config.yaml").write_text(encode(config), encoding="utf-8")
    assert settings_of(tmp_path)["cluster"] == {
        "name": "local", "gpus": 3, "timeout_min": None, "offline": False
    }  # fmt: skip


@pytest.mark.parametrize("name", [executor.name for executor in executors()])
def test_an_executor_is_chosen_by_a_file_of_conf(name: str) -> None:
    config = configured(*TINY, f"cluster={name}")
    assert isinstance(config.cluster, executor_named(name).section)
    assert (REPOSITORY / "conf" / "cluster" / f"{name}.yaml").exists()


def test_nobody_else_speaks_slurm() -> None:
    package = Path(pipeline.__file__).parent
    files = [p for p in package.rglob("*.py") if not p.is_relative_to(package / "executors/slurm")]
    assert files
    assert [
        f"{path}: {found[0]}"
        for path in [*files, REPOSITORY / "launch.py"]
        if (found := OF_SLURM.search(path.read_text(encoding="utf-8")))
    ] == []
