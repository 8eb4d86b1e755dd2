"""Probing, evaluating and tracking beside pruning: real runs of a tiny model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import A_FIFTH, TINY, raw, save_model, save_tokenizer, write_jsonl, write_tokens

import launch
from pipeline.errors import ConfigError
from pipeline.measure.latency import OutOfRoomError, measure_latency
from pipeline.measure.record import Record
from pipeline.models.variants import Variant
from pipeline.stages.shared import measuring
from pipeline.stages.shared.measuring import Measurements, _Part

ARGUMENTS = (
    *TINY,
    *A_FIFTH,
    "run.dir=run",
)
SHORT = (
    "probe.workloads.default.prompt_tokens=4",
    "probe.workloads.default.output_tokens=2",
    "probe.repeats=2",
)
PROBE = (
    "probe=latency",
    "probe.text=text.txt",
    "probe.seqlen=16",
    "probe.tasks=[letters]",
    "probe.items=4",
    *SHORT,
    "+evaluate.task_files.letters=letters.jsonl",
)
EVALUATE = ("evaluate.tasks=[letters]", "evaluate.text=text.txt", "evaluate.seqlen=16")

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, calibration tokens, held-out text and a multiple-choice task, all tiny."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    save_tokenizer(save_model(tmp_path / "model", num_hidden_layers=3))
    write_tokens(tmp_path / "tokens.json")
    (tmp_path / "text.txt").write_text("The held-out text of a tiny model. " * 4)
    rows = [{"context": "ab", "choices": ["c", "zz", "y"], "label": i % 3} for i in range(6)]
    write_jsonl(tmp_path / "letters.jsonl", rows)
    return tmp_path


@pytest.fixture
def run(place: Path) -> Run:
    """Launch in this process and give the summary."""

    def run(*overrides: str) -> dict[str, Any]:
        launch.run(raw(*ARGUMENTS, *overrides), [])
        folder = next((o.partition("=")[2] for o in overrides if o.startswith("run.dir=")), "run")
        return json.loads((place / folder / "summary.json").read_text("utf-8"))

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_step_is_measured_on_the_model_that_is_left(place: Path, run: Run) -> None:
    summary = run(*PROBE)
    steps = lines(place / "run" / "steps.jsonl")
    assert summary["states_measured"] == len(steps) + 1, "the dense model, too"
    for step in steps:
        assert step["ppl"] > 0
        assert 0 <= step["accuracy"] <= 1
        assert step["latency"]["decode"]["median_ms"] > 0
        assert step["latency"]["decode"]["repeats"] == 4
    costs = {name: entry["measuring_seconds"] for name, entry in summary["stages"].items()}
    assert set(costs["prune"]) == {"texts", "tasks", "latency"}
    assert min(costs["prune"].values()) > 0
    assert costs["calibrate"] == costs["probe"] == {}, "the prune stage has measured it all"
    took = sum(summary["stages"][name]["seconds"] for name in ("prune", "probe"))
    share = sum(costs["prune"].values()) / took
    assert summary["probe_share"] == pytest.approx(share, abs=1e-3)
    weights = [step["memory"]["weights"] for step in steps]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < weights[0]


def test_another_probe_scores_nothing_and_measures_what_is_missing(place: Path, run: Run) -> None:
    decided = run()
    steps = lines(place / "run" / "steps.jsonl")
    assert decided["states_measured"] == 0
    assert "ppl" not in steps[0]

    measured = run(*PROBE)
    assert measured["candidates_scored"] == measured["steps_computed"] == 0
    assert measured["states_measured"] == len(steps) + 1
    joined = lines(place / "run" / "steps.jsonl")
    assert [{k: v for k, v in row.items() if k in steps[0]} for row in joined] == steps
    assert all(row["ppl"] > 0 for row in joined)

    again = run(*PROBE)
    assert again["states_measured"] == 0
    assert lines(place / "run" / "steps.jsonl") == joined


def test_every_workload_is_measured_once_and_found_under_any_name(place: Path, run: Run) -> None:
    chat = "probe.workloads.chat={batch: 2, prompt_tokens: 3, output_tokens: 2}"
    run("probe=latency", *SHORT, f"+{chat}", "tracking=local")
    steps = lines(place / "run" / "steps.jsonl")
    assert [[each["workload"] for each in step["latencies"]] for step in steps] == [
        ["default", "chat"]
    ] * len(steps)
    assert all(step["latency"]["workload"] == "default" for step in steps)
    assert all(step["latency"]["way"] == "turns" for step in steps)
    for row in lines(place / "run" / "metrics.jsonl"):
        assert row["probe/chat/decode_median_ms"] > 0
        assert row["probe/decode_median_ms"] > 0
    other = chat.replace("chat", "talk")
    again = run("probe=latency", *SHORT, f"+{other}")
    assert again["states_measured"] == 0
    latencies = lines(place / "run" / "steps.jsonl")[0]["latencies"]
    assert [each["workload"] for each in latencies] == ["default", "talk"]


def test_a_workload_without_room_is_left_out_with_one_warning(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(model: Any, settings: Any, dense: Any, on_progress: Any) -> Any:
        if settings.batch > 1:
            raise OutOfRoomError(f"workload {settings.workload}: out of memory")
        return measure_latency(model, settings, dense, on_progress)

    monkeypatch.setattr(measuring, "measure_latency", measure)
    summary = run("probe=latency", *SHORT, "+probe.workloads.many={batch: 64, prompt_tokens: 4}")
    assert summary["status"] == "done"
    said = [each for each in summary["warnings"] if "many" in each]
    assert said == ["workload many: out of memory; it is left out"]
    assert {len(step.get("latencies", ())) for step in lines(place / "run" / "steps.jsonl")} == {0}


def test_a_model_too_large_for_a_twin_is_timed_alone(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "TWIN_BYTES", 10)
    run("probe=latency", *SHORT)
    steps = lines(place / "run" / "steps.jsonl")
    assert {step["latency"]["way"] for step in steps} == {"eager"}
    assert {step["latency"]["speed_up"] for step in steps} == {None}


def test_where_everything_is_done_no_text_and_no_weights_are_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*PROBE, "calibration=text", "calibration.path=text.txt", "calibration.seqlen=16")
    run(*settings)
    drawn = Path("run/report.html").stat().st_mtime_ns
    with monkeypatch.context() as nothing:
        nothing.setattr("pipeline.models.source.ModelSource.config", property(lambda _: 1 / 0))
        for read in ("incomplete", "prepare", "_unfit"):
            nothing.setattr(f"pipeline.plan.preflight.{read}", None)
        nothing.setattr("pipeline.runs.runner.DenseLoader.__call__", None)
        again = run(*settings)
        assert {entry["status"] for entry in again["stages"].values()} == {"reused"}
        told = Path("run/report.html").stat().st_mtime_ns
        run(*settings)
    assert Path("run/report.html").stat().st_mtime_ns == told != drawn
    # the windows are there; the weights are looked at for what is new
    monkeypatch.setattr("pipeline.plan.preflight._unfit", lambda *_: [])
    monkeypatch.setattr("pipeline.plan.preflight.incomplete", lambda _: ["model.path: looked at"])
    with pytest.raises(ConfigError, match="looked at"):
        run(*settings, "prune.target_ratio=30", "probe=none")


def test_every_other_step_and_the_last_are_measured(place: Path, run: Run) -> None:
    run(*PROBE, "probe.every=2")
    steps = lines(place / "run" / "steps.jsonl")
    last = len(steps) - 1
    measured = [step["step"] for step in steps if "ppl" in step]
    assert measured == [i for i in range(len(steps)) if (i + 1) % 2 == 0 or i == last]


def test_metrics_show_the_dense_model_and_every_step_once_however_often_it_starts(
    place: Path, run: Run
) -> None:
    run(*PROBE, "tracking=local")
    first = lines(place / "run" / "metrics.jsonl")
    run(*PROBE, "tracking=local")
    assert lines(place / "run" / "metrics.jsonl") == first
    steps = lines(place / "run" / "steps.jsonl")
    assert [row["prune/step"] for row in first] == list(range(len(steps) + 1))
    assert first[0]["prune/ratio_percent"] == 0
    for row, step in zip(first[1:], steps, strict=True):
        assert row["prune/importance"] == step["importance"]
        assert row["probe/ppl"] == step["ppl"]
        assert row["probe/accuracy_letters"] == step["accuracy"]


def test_no_tracking_leaves_no_metrics(place: Path, run: Run) -> None:
    run(*PROBE, "tracking=none")
    assert not (place / "run" / "metrics.jsonl").exists()


def test_dense_and_pruned_are_evaluated_side_by_side_and_the_dense_one_once(
    place: Path, run: Run
) -> None:
    first = run(*PROBE, *EVALUATE, "probe=none")
    assert first["states_measured"] == 2
    evaluation = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))
    dense, pruned = (Record.from_json(evaluation[which]) for which in ("dense", "pruned"))
    assert dense.tasks[0].items == pruned.tasks[0].items == 6
    assert dense.ppl != pruned.ppl
    assert pruned.params < dense.params
    assert evaluation["settings"]["lm_eval"] == "0.4.13"

    other = run(*PROBE, *EVALUATE, "probe=none", "prune.target_ratio=10", "run.dir=other")
    assert other["states_measured"] == 1, "the dense model is known"


def test_nothing_measured_is_lost_or_shown_as_something_else(place: Path, run: Run) -> None:
    texts = ("++evaluate.texts={mine: text.txt}", "evaluate.seqlen=16", "evaluate.tasks=[letters]")
    probe = (*PROBE, "tracking=local")
    run(*probe, *texts)
    evaluation = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))
    steps, metrics = (lines(place / "run" / name) for name in ("steps.jsonl", "metrics.jsonl"))

    run(*probe, *texts, "evaluate.limit=2", "evaluate.text_tokens=32")
    smaller = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))
    assert smaller["pruned"]["tasks"][0]["items"] == 2
    assert smaller["pruned"]["texts"][0]["tokens"] == 32
    assert smaller["settings"]["text_tokens"] == 32
    kept = [json.loads(path.read_text("utf-8"))
            for path in (place / "run").glob("measured/evaluate/*/evaluation.json")]  # fmt: skip
    assert len(kept) == 2
    assert evaluation in kept
    page = (place / "run" / "report.html").read_text("utf-8")
    tokens = evaluation["pruned"]["texts"][0]["tokens"]
    for shown in ("letters, 6 items", "letters, 2 items", f"{tokens} tokens", "first 32 tokens"):
        assert shown in page

    run(*probe, "probe=none")
    assert json.loads((place / "run" / "evaluation.json").read_text("utf-8")) == smaller
    assert lines(place / "run" / "steps.jsonl") == steps
    assert lines(place / "run" / "metrics.jsonl") == metrics
    assert "first 32 tokens" in (place / "run" / "report.html").read_text("utf-8")


def test_several_texts_have_a_value_each_and_are_measured_once(place: Path, run: Run) -> None:
    (place / "other.txt").write_text("Quite another text, for the same tiny model. " * 3)
    one = ("++evaluate.texts={mine: text.txt}", "evaluate.seqlen=16")
    first = run(*one)
    both = run(*one, "+evaluate.texts.other=other.txt")
    assert both["states_measured"] == first["states_measured"] == 2
    assert list(both["evaluation"]["pruned"]["texts"]) == ["mine", "other"]
    of_one, of_both = first["evaluation"]["pruned"], both["evaluation"]["pruned"]
    assert of_both["texts"]["mine"] == of_one["texts"]["mine"]
    assert of_both["texts"]["other"]["of"].startswith("other.txt, ")
    records = list((place / "outputs/store/records").glob("*.json"))
    assert len(records) == 4, "two models, two texts"


def test_parameters_are_counted_in_one_way(place: Path, run: Run) -> None:
    summary = run(*EVALUATE, "+evaluate.task_files.letters=letters.jsonl")
    evaluation = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))
    assert evaluation["pruned"]["params"] == summary["params"]
    assert evaluation["dense"]["params"] == summary["total_params"]


def test_another_tokenizer_is_measured_anew_and_the_same_one_elsewhere_is_not(
    place: Path, run: Run
) -> None:
    settings = (*PROBE, *EVALUATE)
    first = run(*settings)
    assert first["states_measured"] > 0
    (place / "moved").mkdir()
    for file in (place / "model").iterdir():
        shutil.copy(file, place / "moved")
    assert run(*settings, "model.path=moved", "run.dir=moved_run")["states_measured"] == 0

    tokenizer = json.loads((place / "model" / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    (place / "model" / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    other = run(*settings, "run.dir=other")
    assert other["candidates_scored"] == 0, "ready token ids decide as before"
    assert other["states_measured"] == first["states_measured"]
    assert other["evaluation"]["dense"]["ppl"] != first["evaluation"]["dense"]["ppl"]


def test_a_published_pruning_config_is_evaluated_without_pruning(place: Path, run: Run) -> None:
    pruned = run(*PROBE, *EVALUATE, "probe=none")
    given = place / "run" / "pruning_config.json"
    alone = run(
        *PROBE,
        *EVALUATE,
        "probe=none",
        f"evaluate.pruning_config={given}",
        "run.dir=alone",
        "store.dir=empty",
    )
    assert alone["candidates_scored"] == 0
    assert list(alone["stages"]) == ["evaluate"]
    assert alone["evaluation"] == pruned["evaluation"]
    assert json.loads((place / "alone" / "pruning_config.json").read_text()) == json.loads(
        given.read_text()
    )


def test_a_run_ends_with_a_picture_and_a_page(place: Path, run: Run) -> None:
    run(*PROBE, *EVALUATE, "run.pictures=[png]")
    assert (place / "run" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (place / "run" / "report.html").read_text("utf-8")


def test_missing_data_is_named_before_the_run_starts(place: Path, run: Run) -> None:
    (place / "nowhere").mkdir()
    with pytest.raises(launch.ConfigError) as caught:
        run("evaluate=commonsense", "evaluate.data_dir=nowhere", "probe=full", "run.dir=r")
    problems = "\n".join(caught.value.problems)
    for name in ("piqa", "winogrande", "hellaswag", "arc_easy", "arc_challenge", "wiki.test.raw"):
        assert name in problems
    assert not (place / "r").exists()
    assert not (place / "outputs").exists()


def test_of_two_processes_that_measure_the_same_both_have_the_first_ones_record(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_part, measured = Measurements._of_part, _Part.measured
    others: list[Record] = []

    def while_another_measures(self: Measurements, part: _Part, variant: Variant) -> Record:
        def slower(*arguments: Any) -> Record:
            with pytest.MonkeyPatch.context() as other:
                other.setattr(_Part, "measured", measured)
                others.append(of_part(self, part, variant))
            mine = measured(*arguments)
            return replace(mine, seconds=mine.seconds + 1000)

        monkeypatch.setattr(_Part, "measured", slower)
        return of_part(self, part, variant)

    monkeypatch.setattr(Measurements, "_of_part", while_another_measures)
    run("evaluate.text=text.txt", "evaluate.seqlen=16")
    evaluation = json.loads((place / "run" / "evaluation.json").read_text("utf-8"))
    assert others
    assert max(evaluation[which]["seconds"] for which in ("dense", "pruned")) < 1000
