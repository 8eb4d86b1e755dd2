"""What ``prune.until`` asks for: problems in a line, exact sizes, and what its runs measure."""

import json
import random
from pathlib import Path

import pytest
from support_inputs import configured, problems_of

from pipeline.measure.intervals import Interval
from pipeline.models.source import ModelSource
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.stages.evaluate import EvaluateConfig
from pipeline.stages.probe import ProbeConfig, probe_protocol
from pipeline.studies.base import Trial
from pipeline.studies.bisection import AGAIN, TARGET, on_the_way
from pipeline.studies.goals import Goal, least_ratio, sizes
from pipeline.studies.reach import most_percent, phases_at
from pipeline.studies.until import Until

LLAMA = {
    "model_type": "llama", "num_hidden_layers": 8, "hidden_size": 64, "intermediate_size": 256,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip
SIZES = ("prune.mlp_group_size=32", "prune.attn_group_size=32")


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return ModelSource(tmp_path, None, None)


def until(source: ModelSource, *overrides: str) -> Until:
    config = configured("model=hf", "model.path=model", *SIZES, *overrides)
    return Until.of(config, source, {override.partition("=")[0] for override in overrides})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["prune.until.decode_speedup=1"],
            "prune.until.decode_speedup: 1 is wrong; allowed is a number above 1",
        ),
        (
            ["prune.until.decode_speedup=1.2", "prune.until.workload=short"],
            "prune.until.workload: 'short' is not there; allowed: default",
        ),
        (
            ["prune.until.weights_gb=1e-3", "prune.until.workload=default"],
            "prune.until.workload: no speed is asked for; add prune.until.decode_speedup or "
            "prune.until.prefill_speedup, or leave it out",
        ),
        (
            ["prune.until.weights_gb=7"],
            "prune.until.weights_gb: 7 is wrong; allowed is less than 0.00202163, which the dense "
            "model has",
        ),
        (
            ["prune.until.kv_cache_bytes_per_token=2048"],
            "prune.until.kv_cache_bytes_per_token: 2048 is wrong; allowed is less than 2048, which "
            "the dense model has",
        ),
        (
            ["prune.until.decode_speedup=1.2", "prune.target_ratio=97"],
            "prune.target_ratio: 97 is wrong; allowed is up to 86.30: prune=multipruner can "
            "remove no more of this model",
        ),
        (
            ["prune.until.weights_gb=1e-3", "prune.target_ratio=20"],
            "prune.until.weights_gb: 0.001 is wrong: 50.54 % would have to go, and "
            "prune.target_ratio=20 is the most that may go; allowed is from 0.00161731 on",
        ),
        (
            ["prune.until.decode_speedup=1.2", "evaluate.pruning_config=pruned.json"],
            "prune.until: nothing is pruned with evaluate.pruning_config; leave one out",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    source: ModelSource, overrides: list[str], said: str
) -> None:
    assert problems_of(lambda: until(source, *overrides)) == [said]


@pytest.mark.parametrize("wanted", [0.0015, 0.0012345678, 0.001016964])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_target_for_weights_is_met_by_those_states_alone_that_are_small_enough(
    source: ModelSource, wanted: float, dtype: str
) -> None:
    wanted = wanted if dtype == "float32" else wanted / 2
    config = configured(
        "model=hf", "model.path=model", *SIZES, f"prune.until.weights_gb={wanted}",
        f"model.dtype={dtype}",
    )  # fmt: skip
    study = Until.of(config, source, ())
    ratio = least_ratio(config, source, study.goals[0])
    total, itemsize = source.shape.total_params, 4 if dtype == "float32" else 2
    for params in range(int(wanted * 1e9 / itemsize) - 3, int(wanted * 1e9 / itemsize) + 4):
        goes_on = (total - params) / total * 100 < ratio
        assert goes_on == (params * itemsize / 1e9 > wanted)
    assert study.next([]) == [{TARGET: ratio, AGAIN: 0}], "nothing has to be tried"


def test_the_cap_is_about_what_can_be_removed(source: ModelSource) -> None:
    config = configured("model=hf", "model.path=model", *SIZES)
    likely, most = most_percent(config, source)
    luck, state = random.Random(0), PruningState.dense(source.shape)
    for phase in phases_at(config, source, likely):
        while state.ratio_percent < phase.end_percent and (ahead := phase.candidates(state)):
            state = state.without(luck.choice(ahead))
    assert state.ratio_percent == pytest.approx(likely, abs=2)
    assert likely <= most < 90


@pytest.mark.parametrize("method", ["shortgpt", "finercut", "flap"])
def test_the_cap_of_one_dimension_is_exact(source: ModelSource, method: str) -> None:
    config = configured("model=hf", "model.path=model", f"prune={method}")
    (phase,) = phases_at(config, source, 99.99)
    all_gone = phase.exhausted(PruningState.dense(source.shape)).ratio_percent
    assert most_percent(config, source) == (pytest.approx(all_gone, abs=0.02),) * 2


def test_sizes_are_those_of_the_state(source: ModelSource) -> None:
    config = configured("model=hf", "model.path=model", "model.dtype=float16")
    dense = PruningState.dense(source.shape)
    cached = sizes(config, source, dense)["kv_cache_bytes_per_token"]
    assert cached == 8 * 2 * 32 * 2, "layers, keys and values, two heads of 16, two bytes"


def trial_and_end(study: Until, config: Config) -> tuple[Config, Config]:
    (values,) = study.next([])
    return study.configured(config, values), study.configured(config, {TARGET: 20.0})


def test_runs_on_the_way_measure_what_counts_at_both_ends_and_nothing_else(
    source: ModelSource,
) -> None:
    study = until(
        source, "prune.until.decode_speedup=1.2", "probe=serving", "prune.until.workload=long",
        "probe.tasks=[piqa]", "evaluate=commonsense", "export=hf", "recover=distill",
        "run.name=fast",
    )  # fmt: skip
    on_the_way, end = trial_and_end(study, study.config)
    protocol = probe_protocol(on_the_way)
    assert [workload.workload for workload in protocol.workloads] == ["long"]
    assert (protocol.texts, protocol.tasks) == ((), ())
    assert on_the_way.of(ProbeConfig).every > 10_000
    assert not on_the_way.of(EvaluateConfig).enabled
    assert (on_the_way.run.name, end.run.name) == (None, "fast")
    assert end.of(EvaluateConfig) == study.config.of(EvaluateConfig)
    assert end.of(ProbeConfig) == study.config.of(ProbeConfig)


def test_a_probe_is_turned_on_where_a_speed_is_wanted_and_said_so(source: ModelSource) -> None:
    study = until(source, "prune.until.decode_speedup=1.2", "probe=none")
    assert all(each.of(ProbeConfig).latency for each in trial_and_end(study, study.config))
    assert "speeds are measured at the end of each" in study.budget
    counted = until(source, "prune.until.kv_cache_bytes_per_token=1024", "probe=latency")
    on_the_way, end = trial_and_end(counted, counted.config)
    assert (on_the_way.of(ProbeConfig).every, end.of(ProbeConfig).every) == (0, 1)


def outcome(at: Interval, ratio: float) -> dict[str, float]:
    speed = {
        "decode_speedup": at.median,
        "decode_speedup_low": at.low,
        "decode_speedup_high": at.high,
    }
    return {**speed, "ratio_percent": ratio, "weights_gb": 1.0}


def test_the_end_is_told_with_what_was_measured_and_what_is_below(source: ModelSource) -> None:
    study = until(source, "prune.until.decode_speedup=1.2", "prune.target_ratio=30")
    enough, less = Interval(1.23, 1.2, 1.26), Interval(1.19, 1.18, 1.2)
    trials = [
        Trial(0, on_the_way(15.5), outcome(less, 15.6), "done"),
        Trial(1, on_the_way(16.0), outcome(enough, 16.4), "done"),
        Trial(2, on_the_way(16.0, 1), outcome(enough, 16.4), "done"),
    ]
    assert study.next(trials) == [{TARGET: 16.0, AGAIN: 0}]
    trials.append(
        Trial(3, {TARGET: 16.0, AGAIN: 0}, outcome(enough, 16.4), "done", run="runs/found")
    )
    ending = study.ending(trials)
    assert ending is not None
    assert ending.run == "runs/found"
    assert ending.text == (
        "prune.until is met at prune.target_ratio=16.0 (16.40 % removed): decode_speedup 1.23 "
        "(1.20 to 1.26), again decode_speedup 1.23 (1.20 to 1.26); workload default. "
        "At 15.5: decode_speedup 1.19 (1.18 to 1.20)"
    )
    assert ending.facts["found"] == {
        "target_ratio": 16.0, "run": "runs/found", "decode_speedup": 1.23
    }  # fmt: skip


def test_out_of_reach_tells_how_far_it_came(source: ModelSource) -> None:
    study = until(source, "prune.until.decode_speedup=1.5", "prune.target_ratio=30")
    trials = [Trial(0, on_the_way(30.0), outcome(Interval(1.23, 1.2, 1.26), 30.2), "done")]
    ending = study.ending(trials)
    assert ending is not None
    assert ending.run is None
    assert ending.text == (
        "prune.until: decode_speedup=1.5 is out of reach up to prune.target_ratio=30; at 30 it "
        "came to decode_speedup 1.23 (1.20 to 1.26); workload default; the lower ends count"
    )


def test_an_interval_is_shown_no_narrower_than_it_is() -> None:
    goal = Goal("decode_speedup", 1.2, dense=1.0)
    outcome = {"decode_speedup": 1.21, "decode_speedup_low": 1.1971, "decode_speedup_high": 1.2234}
    assert not goal.is_met(outcome)
    assert goal.in_words(outcome) == "decode_speedup 1.21 (1.19 to 1.23)"
    exact = {"decode_speedup": 1.21, "decode_speedup_low": 1.13, "decode_speedup_high": 1.29}
    assert goal.in_words(exact) == "decode_speedup 1.21 (1.13 to 1.29)"
