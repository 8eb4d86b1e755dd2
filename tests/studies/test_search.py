"""What a search proposes is decided by its seed and the results so far, and by nothing else."""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support_inputs import TINY, configured, problems_of, save_model, write_tokens

from pipeline.config.schema import is_known
from pipeline.plan.preflight import check
from pipeline.settings.study import Range, StudyConfig
from pipeline.studies import study_of
from pipeline.studies.base import Trial
from pipeline.studies.quantities import constraint_of
from pipeline.studies.search import Search
from pipeline.studies.space import Space, shares_of

SETTINGS: dict[str, Any] = {
    "space": {
        "prune": {
            "target_ratio": {"low": 5, "high": 30, "step": 2.5},
            "distribution": {"simplex": 3, "step": 10},
            "mlp_group_size": {"choices": [64, 128]},
        }
    },
    "objectives": ["minimize ppl", "maximize ratio"],
    "constraints": ["ppl <= 30"],
    "population": 6,
}


def search(**settings: Any) -> Search:
    return Search(StudyConfig.model_validate({**SETTINGS, "runs": 24, **settings}))


def measured(values: Mapping[str, Any]) -> dict[str, float]:
    """Perplexity that grows with the ratio, least where half of it is of channels."""
    ratio, (_, channels, _) = values["prune.target_ratio"], values["prune.distribution"]
    ppl = 10 * math.exp(ratio / 25) + abs(channels - 50) / 10 + values["prune.mlp_group_size"] / 64
    return {"ppl": ppl, "ratio": ratio}


def done(trial: Trial) -> Trial:
    return replace(trial, state="done", outcome=measured(trial.values))


def after(
    study: Search, trials: Sequence[Trial] = (), end: Callable[[Trial], Trial] = done
) -> list[Trial]:
    """The trials with one more generation."""
    generation = trials[-1].generation + 1 if trials else 0
    proposed = [
        Trial(number, values, generation=generation)
        for number, values in enumerate(study.next(trials), len(trials))
    ]
    return [*trials, *map(end, proposed)]


def through(study: Search, end: Callable[[Trial], Trial] = done) -> list[Trial]:
    trials: list[Trial] = []
    while len(more := after(study, trials, end)) > len(trials):
        trials = more
    return trials


def reread(trials: Sequence[Trial]) -> list[Trial]:
    """As another process finds them on disk."""
    return [Trial(**json.loads(json.dumps(asdict(trial)))) for trial in trials]


def fails(trial: Trial) -> Trial:
    return replace(trial, state="failed") if trial.number in {2, 7, 8} else done(trial)


@pytest.mark.parametrize("method", ["nsga2", "tpe", "random"])
def test_a_study_interrupted_after_every_generation_proposes_the_same(method: str) -> None:
    whole = through(search(method=method), fails)
    assert len(whole) == 24
    for end in range(0, 24, 6):
        assert after(search(method=method), reread(whole[:end]), fails) == whole[: end + 6]
    other = through(search(method=method, seed=1), fails)
    assert [t.values for t in other[:6]] != [t.values for t in whole[:6]]


@pytest.mark.parametrize("method", ["nsga2", "tpe", "random"])
def test_every_proposal_is_new_and_within_its_range(method: str) -> None:
    trials = through(search(method=method, runs=60))
    values = [trial.values for trial in trials]
    assert len({json.dumps(each) for each in values}) == len(values) == 60
    for each in values:
        assert each["prune.target_ratio"] in [5 + 2.5 * step for step in range(11)]
        assert sum(each["prune.distribution"]) == 100
        assert each["prune.mlp_group_size"] in (64, 128)


def test_a_space_that_is_used_up_ends_the_study() -> None:
    space = {"mlp_group_size": {"choices": [32, 64, 128]}, "target_ratio": {"low": 5, "high": 6}}
    study = search(space={"prune": space}, objectives=["minimize ppl"], constraints=[], runs=40)
    trials = through(study, lambda t: replace(t, state="done", outcome={"ppl": 1.0}))
    assert len(trials) == 6


def test_a_larger_budget_continues_the_same_study() -> None:
    short, long = through(search(runs=12)), through(search(runs=24))
    assert long[:12] == short
    continued = short
    while len(more := after(search(runs=24), reread(continued))) > len(continued):
        continued = more
    assert continued == long


def test_hours_of_gpus_are_a_budget_before_each_generation() -> None:
    study = search(runs=None, gpu_hours=1.0)
    trials = through(study, lambda trial: replace(done(trial), gpu_hours=0.1))
    assert len(trials) == 12


@pytest.mark.parametrize(("method", "inherits"), [("nsga2", True), ("random", False)])
def test_children_have_values_of_their_parents_also_after_failed_runs(
    method: str, inherits: bool
) -> None:
    """Any number between two is equal to a parent's by descent alone."""
    ranges = {
        "target_ratio": {"low": 5.0, "high": 30.5},
        "expert_group_size": {"low": 1, "high": 2},
    }
    study = search(space={"prune": ranges}, method=method, constraints=[], runs=18)

    def end(trial: Trial) -> Trial:
        outcome = {"ppl": math.exp(trial.values["prune.target_ratio"] / 25), "ratio": 1.0}
        state = "failed" if trial.number in {2, 7, 8} else "done"
        return replace(trial, state=state, outcome=outcome if state == "done" else None)

    trials = through(study, end)
    for generation in (1, 2):
        parents = {
            trial.values["prune.target_ratio"]
            for trial in trials
            if trial.generation < generation and trial.outcome
        }
        children = [t.values["prune.target_ratio"] for t in trials if t.generation == generation]
        assert any(child in parents for child in children) == inherits


def test_shares_that_are_told_again_are_those_that_were_drawn() -> None:
    space = Space({"prune.distribution": Range(simplex=3, step=4)})
    for shares in ([100, 0, 0], [44, 52, 4], [0, 0, 100], [32, 32, 36]):
        params = space.params_of({"prune.distribution": shares})
        assert shares_of(list(params.values()), 4) == shares


def test_a_constraint_may_be_against_the_dense_model() -> None:
    outcome = {"accuracy": 54.0, "dense accuracy": 55.0}
    assert constraint_of("accuracy >= dense - 2").excess(outcome) < 0
    assert constraint_of("accuracy>=dense-0.5").excess(outcome) == pytest.approx(0.5 / 54.5)
    assert constraint_of("accuracy <= dense * 0.9").excess(outcome) > 0


def test_optuna_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after(search(method="tpe"), through(search(method="tpe", runs=6)))
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", num_hidden_layers=3)
    write_tokens(tmp_path / "tokens.json")
    return tmp_path


GOOD = (
    "study.space.prune.target_ratio={low: 5, high: 30}",
    "study.objectives=[minimize params]",
    "study.runs=8",
    "prune.mlp_group_size=8",
    "prune.attn_group_size=8",
)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["study.objectives=[maximize accuracy]"],
            "study.objectives: maximize accuracy: no run measures accuracy; add "
            "evaluate=commonsense, or evaluate.tasks",
        ),
        (
            [
                "study.objectives=[minimize decode_ms long]",
                "probe=latency",
                "probe.workloads.default.prompt_tokens=4",
                "probe.workloads.default.output_tokens=2",
            ],
            "study.objectives: minimize decode_ms long: no run measures decode_ms of 'long'; "
            "allowed is default, or leave it out for default",
        ),
        (
            ["study.objectives=[minimise params]"],
            "study.objectives: 'minimise params' is wrong; allowed is maximize or minimize and "
            'what counts, e.g. "minimize ppl"',
        ),
        (
            ["study.objectives=[minimize parms]"],
            "study.objectives: 'parms' is nothing that runs measure; did you mean params? Allowed: "
            "accuracy, ppl, prefill_ms, prefill_speedup, decode_ms, decode_speedup, weights_mb, "
            "kv_cache_bytes, memory_mb, params, ratio",
        ),
        (
            ["study.constraints=['ratio > 5']"],
            "study.constraints: 'ratio > 5' is wrong; allowed is QUANTITY, >= or <=, and a number "
            'or dense, e.g. "accuracy >= dense - 2", "ppl <= dense * 1.2", "decode_ms <= 8"',
        ),
        (
            ["study.space.prune.target_ratio.high=120"],
            "study.space.prune.target_ratio: its high is refused: prune.target_ratio: 120 is "
            "wrong; allowed is a number below 100",
        ),
        (
            ["study.space.prune.target_ratio.high=2"],
            "study.space.prune.target_ratio: low, 5, is not below high, 2",
        ),
        (
            ["+study.space.cluster.name.choices=[slurm]"],
            "study.space.cluster.name: decides no result, so there is nothing to find out",
        ),
        (
            ["study.runs=4"],
            "study.runs: 4 is less than one generation of study.population=8; allowed is 8 or "
            "more, or a smaller population",
        ),
        (
            ["study.runs=null"],
            "study.runs: the study has no budget; give study.runs=48 or study.gpu_hours=10",
        ),
        (
            ["study.reference=[1,2]"],
            "study.reference: has 2 numbers; allowed is one for each of the 1 objectives",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    overrides: Sequence[str], problem: str, place: Path
) -> None:
    def work() -> None:
        config = configured(*TINY, *map(_added, (*GOOD, *overrides)))
        study_of(config, check(config), ())

    assert problems_of(work) == [problem]


def _added(override: str) -> str:
    return f"++{override.lstrip('+')}" if override.startswith(("study.space", "+")) else override


def test_keys_of_ranges_are_known_with_their_dots() -> None:
    assert is_known("study.space.prune.target_ratio.low")
    assert is_known("study.space.prune.mlp_group_size.choices")
    assert not is_known("study.space.prune.target_ration.low")
