import math

from pipeline.measure.record import Latency, Memory, Record, TaskScore, TextScore, Timing
from pipeline.pruning.records import StepRecord
from pipeline.pruning.steps import Step
from pipeline.pruning.units import MLP_WIDTH, Candidate
from pipeline.tracking.metrics import dense_metrics, evaluation_metrics, step_metrics

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


def record(**changed: object) -> Record:
    values = {
        "params": 10,
        "texts": (),
        "tasks": (),
        "latency": None,
        "memory": None,
        "seconds": 1.5,
        "made_by": {"host": "h"},
    }
    return Record(**{**values, **changed})  # type: ignore[arg-type]


def test_the_dense_model_is_step_0() -> None:
    assert dense_metrics(1000, None) == {
        "prune/step": 0,
        "prune/ratio_percent": 0.0,
        "prune/params": 1000,
    }


def test_a_step_counts_the_removals_so_far() -> None:
    assert step_metrics(ROW, None) == {
        "prune/step": 5,
        "prune/ratio_percent": 3.25,
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
        latency=Latency(4, 128, 32, Timing(1.0, 2.0, 5), Timing(3.0, 4.0, 6), 5.0, 6.0),
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
        "probe/prefill_median_ms": 1.0,
        "probe/prefill_p95_ms": 2.0,
        "probe/decode_median_ms": 3.0,
        "probe/decode_p95_ms": 4.0,
        "probe/prefill_tokens_per_s": 5.0,
        "probe/decode_tokens_per_s": 6.0,
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
        TaskScore("piqa", 100, 0.5, 0.01, 0.75, 0.02),
        TaskScore("winogrande", 100, 0.25, 0.03, None, None),
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
