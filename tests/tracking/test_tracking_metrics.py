import math

from pipeline.measure.intervals import Interval
from pipeline.measure.record import (
    Floor,
    Latency,
    Memory,
    Record,
    SpeedUp,
    TaskScore,
    TextScore,
    Timing,
)
from pipeline.pruning.records import StepRecord
from pipeline.pruning.steps import Step
from pipeline.pruning.units import MLP_WIDTH, Candidate
from pipeline.tracking.metrics import (
    dense_metrics,
    evaluation_metrics,
    is_detail,
    series_of,
    step_metrics,
)

ROW = StepRecord(
    step=4,
    dimension="mlp_channels",
    decision=Step(Candidate(MLP_WIDTH, 7, 1024), 21.5, ()),
    ratio_percent=3.25,
    params=123_456,
    source=("t", 0),
)


def text(ppl: float) -> TextScore:
    return TextScore("mine", "notes.txt", None, 64, False, 16, ppl)


def timed(**changed: object) -> Latency:
    twice = Interval(2.0, 1.5, 2.5)
    prefill, decode = Timing(1.0, 2.0, 5, 0.5, 0.9, 1.1), Timing(4.0, 5.0, 6)
    values = {
        "batch": 4,
        "prompt_tokens": 128,
        "output_tokens": 32,
        "prefill": prefill,
        "decode": decode,
        "way": "turns",
        "speed_up": SpeedUp(twice, twice, prefill, decode),
        "floor": Floor(0.25, 1.0),
    }
    return Latency(**{**values, **changed})  # type: ignore[arg-type]


def of_workload(prefix: str, is_eager: int) -> dict[str, float]:
    values = {
        "prefill_median_ms": 1.0,
        "prefill_p95_ms": 2.0,
        "prefill_min_ms": 0.5,
        "prefill_tokens_per_s": 512_000.0,
        "prefill_floor_share": 0.25,
        "decode_median_ms": 4.0,
        "decode_p95_ms": 5.0,
        "decode_tokens_per_s": 1000.0,
        "decode_floor_share": 0.25,
        "is_eager": is_eager,
    }
    for part in ("prefill", "decode"):
        speed_up = {"": 2.0, "_low": 1.5, "_high": 2.5}
        values |= {f"{part}_speed_up{name}": value for name, value in speed_up.items()}
    return {prefix + name: value for name, value in values.items()}


def record(**changed: object) -> Record:
    values = {
        "params": 10,
        "texts": (),
        "tasks": (),
        "latencies": (),
        "memory": None,
        "seconds": 1.5,
        "made_by": {"host": "h"},
    }
    return Record(**{**values, **changed})  # type: ignore[arg-type]


def test_the_dense_model_is_step_0() -> None:
    known = {"prune/step": 0, "prune/ratio_percent": 0.0, "prune/params": 1000}
    assert dense_metrics(1000, None) == known
    assert dense_metrics(1000, None, 12.5) == known | {"prune/ppl": 12.5}


def test_curves_have_no_words_and_no_numbers_of_layers() -> None:
    curves = {"prune/step", "prune/ratio_percent", "prune/ppl", "prune/importance", "prune/params"}
    assert series_of(step_metrics(ROW, None)).keys() == curves
    assert {name for name in curves if not is_detail(name)} == {"prune/ppl"}
    timings = step_metrics(ROW, record(latencies=(timed(),))).keys()
    shown = {name for name in timings if name.startswith("probe/") and not is_detail(name)}
    figures = ("median_ms", "speed_up", "tokens_per_s")
    assert shown == {f"probe/{part}_{name}" for part in ("prefill", "decode") for name in figures}


def test_a_step_counts_the_removals_so_far() -> None:
    assert step_metrics(ROW, None) == {
        "prune/step": 5,
        "prune/ratio_percent": 3.25,
        "prune/ppl": 21.5,
        "prune/importance": 21.5,
        "prune/params": 123_456,
        "prune/dimension": "mlp_channels",
        "prune/unit": "mlp_width",
        "prune/layer": 7,
        "prune/width_after": 1024,
    }


def test_what_a_probe_measured_is_in_the_same_row() -> None:
    measured = record(
        texts=(text(9.5),),
        tasks=(
            TaskScore("piqa", 100, 0.5, 0.01, 0.75, 0.02),
            TaskScore("winogrande", 100, 0.25, 0.01, None, None),
        ),
        latencies=(timed(), timed(workload="long", way="eager")),
        memory=Memory(weights=7, kv_cache_per_token=8, peak=9),
    )
    probed = {
        name: value
        for name, value in step_metrics(ROW, measured).items()
        if name.startswith("probe/")
    }
    assert probed == {
        "probe/ppl": 9.5,
        "probe/accuracy": 0.5,
        "probe/accuracy_piqa": 0.75,
        "probe/accuracy_winogrande": 0.25,
        **of_workload("probe/", is_eager=0),
        **of_workload("probe/long/", is_eager=1),
        "probe/weight_bytes": 7,
        "probe/kv_cache_bytes_per_token": 8,
        "probe/peak_bytes": 9,
        "probe/seconds": 1.5,
    }
    assert dense_metrics(10, measured).items() >= probed.items()


def test_what_was_not_measured_or_is_no_number_is_left_out() -> None:
    measured = record(
        texts=(text(math.inf),), memory=Memory(weights=7, kv_cache_per_token=8, peak=None)
    )
    assert dense_metrics(10, measured) == {
        "prune/step": 0,
        "prune/ratio_percent": 0.0,
        "prune/params": 10,
        "probe/weight_bytes": 7,
        "probe/kv_cache_bytes_per_token": 8,
        "probe/seconds": 1.5,
    }


def test_an_evaluation_tells_of_every_task() -> None:
    tasks = (
        TaskScore("piqa", 100, 0.5, 0.01, 0.75, 0.02, "01" * 50, "0111" * 25),
        TaskScore("winogrande", 100, 0.25, 0.03, None, None, "0001" * 25),
    )
    assert evaluation_metrics("pruned", record(texts=(text(9.5),), tasks=tasks)) == {
        "evaluate/pruned_ppl": 9.5,
        "evaluate/pruned_ppl_mine": 9.5,
        "evaluate/mine": "notes.txt, first 64 tokens, windows of 16",
        "evaluate/accuracy_of": "mean of piqa, winogrande, 100 items each",
        "evaluate/pruned_accuracy": 0.5,
        "evaluate/pruned_accuracy_piqa": 0.75,
        "evaluate/pruned_stderr_piqa": 0.02,
        "evaluate/pruned_accuracy_winogrande": 0.25,
        "evaluate/pruned_stderr_winogrande": 0.03,
    }
    assert evaluation_metrics("dense", None) == {}
