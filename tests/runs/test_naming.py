"""How a run is found among others: its name, tags and stage."""

from pathlib import Path

import pytest
from support_inputs import configured, problems_of

from pipeline.runs.naming import display_name, job_type, mirrored_config, tags
from pipeline.stages import stages as registered
from pipeline.stages.base import PlannedStage

PAPER = ("+paper=llama2_7b",)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (PAPER, "Llama-2-7b-hf 22% 44:52:4"),
        ((*PAPER, "prune.target_ratio=12.5"), "Llama-2-7b-hf 12.5% 44:52:4"),
        (
            (*PAPER, "calibration=wikitext2", "calibration.seqlen=1024", "prune.search=race"),
            "Llama-2-7b-hf 22% 44:52:4 wikitext2 1024 tokens race",
        ),
        (
            (*PAPER, "calibration.width_samples=64", "prune.weight_reorder=false"),
            "Llama-2-7b-hf 22% 44:52:4 64 width rows not reordered",
        ),
        ((*PAPER, "run.name=mine"), "mine"),
        ((*PAPER, "+evaluate.pruning_config=runs/a/pruning_config.json"), "Llama-2-7b-hf a"),
    ],
)
def test_the_name_tells_what_is_compared(overrides: tuple[str, ...], name: str) -> None:
    assert display_name(configured(*overrides), "Llama-2-7b-hf") == name


def test_tags_are_the_users_and_the_runs_own_each_once() -> None:
    config = configured(*PAPER, "tracking.tags=[mine,race,mine]", "prune.search=race")
    model = "m" * 80
    assert tags(config, model) == ("mine", "race", "m" * 64, "llama2_7b", "alpaca")


def test_a_tag_that_wandb_would_refuse_is_a_wrong_value() -> None:
    told = problems_of(lambda: configured(f"tracking.tags=[{'x' * 65}]"))
    assert len(told) == 1
    assert told[0].startswith("tracking.tags")


@pytest.mark.parametrize(
    ("stages", "shown"),
    [
        (["calibrate", "score", "prune", "probe"], "prune"),
        (["calibrate"], "calibrate"),
        (["evaluate"], "evaluate"),
        (["prune", "evaluate"], "prune"),
        (["evaluate", "dense"], "evaluate"),
    ],
)
def test_a_process_is_called_after_its_main_stage(stages: list[str], shown: str) -> None:
    by_name = {stage.name: stage for stage in registered()}
    planned = [PlannedStage(by_name[name], name, {}) for name in stages]
    assert job_type(planned) == shown


@pytest.mark.parametrize("cluster", ["inline", "local", "slurm"])
def test_where_the_stages_run_is_shown(cluster: str) -> None:
    shown = mirrored_config(configured(f"cluster={cluster}"), Path("outputs/runs/x"))
    assert shown["cluster"]["name"] == cluster
    assert None not in shown["cluster"].values()


def test_a_table_of_runs_has_method_ratio_and_distribution_as_columns() -> None:
    shown = mirrored_config(configured("prune.distribution=[1,2,1]"), Path("x"))
    assert (shown["method"], shown["distribution"]) == ("multipruner", "1:2:1")
    assert shown["target_ratio"] == shown["prune"]["target_ratio"]
    names = ("blocks", "mlp_channels", "heads")
    assert [shown[f"percent_of_{name}"] for name in names] == [25, 50, 25]
    of_mixture = mirrored_config(configured("prune.distribution=[1,0,1,2]"), Path("x"))
    assert [of_mixture[f"percent_of_{name}"] for name in (*names, "experts")] == [25, 0, 25, 50]
    assert "percent_of_blocks" not in mirrored_config(configured("prune=shortgpt"), Path("x"))


def test_a_trial_shows_its_number_and_what_was_proposed() -> None:
    space = "++study.space={prune.target_ratio: {low: 5, high: 25}}"
    shown = mirrored_config(configured(space, "sweep.trial=7", "prune.target_ratio=12"), Path("x"))
    assert (shown["trial"], shown["proposed"]) == (7, {"prune.target_ratio": 12})
    assert "trial" not in mirrored_config(configured(space), Path("x"))


def test_what_may_hold_a_key_is_not_shown_elsewhere() -> None:
    config = configured(
        "cluster=slurm",
        "++cluster.setup=['export HF_TOKEN=hunter2']",
        "++cluster.stages.prune.setup=['export HF_TOKEN=hunter2']",
    )
    shown = mirrored_config(config, Path("outputs/runs/x"))
    assert "hunter2" not in str(shown)
    assert shown["folder"] == str(Path("outputs/runs/x").absolute())
