from dataclasses import replace

from support_compare import with_items
from support_report import WIKITEXT2, bare, broken, full, text

from pipeline.measure.record import Record
from pipeline.report.data import RunReport
from pipeline.report.dense_and_pruned import Row, dense_and_pruned
from pipeline.report.drawing.scales import tick_text
from pipeline.report.headline import headlines
from pipeline.report.table import dense_and_pruned_table
from pipeline.report.wording import MINUS, NOTHING, TIMES, number, relative_change, score_text
from pipeline.screen import screen

HELD_OUT = "Perplexity: heldout.txt, first 8,192 tokens, windows of 512"
ON_WIKITEXT2 = "Perplexity: WikiText-2 test, 341,000 tokens, windows of 2,048"
ACCURACY = "Accuracy: mean of arc_easy, hellaswag, piqa, 200 items each"


def rows_of(report: RunReport) -> dict[str, Row]:
    return {row.label: row for row in dense_and_pruned(report)}


def terminal_text(report: RunReport, width: int = 110) -> str:
    console = screen(width=width)
    with console.capture() as captured:
        console.print(dense_and_pruned_table(report))
    return captured.get()


def test_every_quantity_has_its_row_with_the_right_numbers() -> None:
    report = full()
    rows = rows_of(report)
    before, after = report.dense, report.pruned
    assert before
    assert after
    assert before.memory
    assert rows["Parameters"].dense == "63,713,088"
    assert rows["Parameters"].pruned == f"{report.state.params:,}"
    assert rows["Removed"].pruned == "18.98 %"
    assert rows[HELD_OUT].dense == f"{before.ppl:.2f}"
    assert rows[HELD_OUT].pruned == f"{after.ppl:.2f}"
    assert rows[ON_WIKITEXT2] == Row(ON_WIKITEXT2, "15.31", "23.87", "+55.9 %", better=False)
    assert rows[f"Prefill, 1 {TIMES} 512 tokens (ms)"].dense == "179.8"
    assert rows["Decode, batch of 1 (ms per token)"].dense == "30.63"
    assert rows["Decode, batch of 1 (ms per token)"].better is True
    assert rows["Weights (MB)"].dense == f"{before.memory.weights / 1e6:.1f}"
    assert rows["KV cache (bytes per token)"] == Row(
        "KV cache (bytes per token)", "15,360", "9,216", f"{MINUS}40.0 %", better=True
    )
    assert rows["Peak memory (MB)"].pruned == "1,106"


def test_accuracy_is_told_with_its_standard_error() -> None:
    report = full()
    rows = rows_of(report)
    scores = report.evaluations[0].tasks("dense")
    assert rows["piqa, 200 items"].dense == f"{scores[2].accuracy * 100:.1f} ± 3.4 %"
    assert rows["piqa, 200 items"].indent
    mean = sum(score.accuracy for score in scores) / 3 * 100
    # 3.4 percent in each of three tasks: 3.4 / sqrt(3) in their mean.
    assert rows[ACCURACY].dense == f"{mean:.1f} ± 2.0 %"
    assert rows[ACCURACY].change.endswith(" points")


def test_a_change_of_accuracy_is_paired_where_items_were_kept() -> None:
    report = full()
    (evaluated,) = report.evaluations
    assert evaluated.dense
    assert evaluated.pruned
    dense, pruned = "1" * 150 + "0" * 50, "0" * 2 + "1" * 146 + "0" * 52

    def rows_with(marks: str) -> dict[str, Row]:
        sides = {
            "dense": with_items(evaluated.dense, dense),
            "pruned": with_items(evaluated.pruned, marks),
        }
        return rows_of(replace(report, evaluations=(replace(evaluated, **sides),)))

    clear = rows_with(pruned)[ACCURACY]
    assert (clear.change, clear.better) == (f"{MINUS}2.0 points", False)
    assert clear.interval.startswith(f"({MINUS}3")
    swapped = rows_with(dense[::-1])["piqa, 200 items"]
    assert (swapped.change, swapped.better) == ("0.0 points", None)
    assert rows_of(report)[ACCURACY].interval == "(unpaired)"


def test_accuracies_of_different_tasks_are_not_compared() -> None:
    report = full()
    (evaluated,) = report.evaluations
    assert evaluated.pruned
    fewer = replace(evaluated.pruned, tasks=evaluated.pruned.tasks[:2])
    rows = rows_of(replace(report, evaluations=(replace(evaluated, pruned=fewer),)))
    assert rows[ACCURACY].change == ""
    assert rows["piqa, 200 items"].pruned == NOTHING
    assert rows["arc_easy, 200 items"].change != ""


def test_latencies_of_different_batches_are_not_compared() -> None:
    report = full()
    assert report.pruned
    assert report.pruned.latency
    other = replace(report.pruned, latencies=(replace(report.pruned.latency, batch=4),))
    row = rows_of(replace(report, pruned=other))[f"Prefill, 4 {TIMES} 512 tokens (ms)"]
    assert row.dense
    assert row.pruned
    assert not row.change


def test_probes_stand_in_for_an_evaluation() -> None:
    report = replace(full(), evaluations=())
    assert report.pruned
    accuracy = report.pruned.accuracy
    assert accuracy is not None
    assert rows_of(report)[ACCURACY].pruned.startswith(f"{accuracy * 100:.1f}")


def test_the_probe_of_the_last_step_stands_in_for_the_pruned_model() -> None:
    report = full()
    assert report.records[29]
    assert report.pruned != report.records[29]
    assert replace(report, pruned=None).record_of("pruned") == report.records[29]


def test_every_evaluation_has_rows_that_say_what_it_is() -> None:
    report = full()
    (first,) = report.evaluations
    assert first.dense
    assert first.pruned
    fewer = [replace(task, items=20) for task in first.pruned.tasks]
    short = replace(WIKITEXT2, tokens=8192, is_whole=False)
    other = replace(
        first,
        dense=replace(first.dense, texts=(text(16.0, short),)),
        pruned=replace(first.pruned, texts=(text(25.0, short),), tasks=tuple(fewer)),
    )
    rows = rows_of(replace(report, evaluations=(other, first)))
    assert rows[ON_WIKITEXT2].pruned == "23.87"
    assert (
        rows["Perplexity: WikiText-2 test, first 8,192 tokens, windows of 2,048"].pruned == "25.00"
    )
    assert rows[ACCURACY].pruned
    assert rows[ACCURACY.replace("200", "20")].pruned


def test_one_measurement_under_two_names_is_one_row() -> None:
    report = full()
    labels = [row.label for row in dense_and_pruned(replace(report, evaluations=(report.probed,)))]
    assert labels.count(HELD_OUT) == 1


def test_rows_without_data_are_left_out() -> None:
    without_steps = replace(bare(), steps=())
    assert [row.label for row in dense_and_pruned(without_steps)] == ["Parameters", "Removed"]
    assert "Weights" not in terminal_text(bare())


def test_calibration_perplexity_stands_in_where_no_other_text_was_measured() -> None:
    last = bare().steps[-1]
    known = replace(bare(), dense_importance={last.dimension: 10.0}, calibration_text="some rows")
    row = rows_of(known)["Calibration perplexity: some rows"]
    assert (row.dense, row.pruned) == ("10.00", number(last.decision.perplexity))
    assert not any(label.startswith("Calibration") for label in rows_of(full()))


def test_failed_measurements_are_no_numbers() -> None:
    rows = rows_of(broken())
    assert rows[HELD_OUT].pruned == NOTHING
    assert not any("nan" in text for row in rows.values() for text in (row.dense, row.pruned))


def test_an_unchanged_quantity_is_neither_better_nor_worse() -> None:
    report = full()
    row = rows_of(replace(report, pruned=report.dense))["Weights (MB)"]
    assert (row.change, row.better) == ("0.0 %", None)


def test_the_terminal_table_shows_all_rows_unwrapped() -> None:
    lines = terminal_text(full()).splitlines()
    assert any("63,713,088" in line and f"{MINUS}19.0 %" in line for line in lines)
    rows = dense_and_pruned(full())
    below = [row for row in rows if row.interval and not row.indent]
    assert len(lines) == len(rows) + len(below) + 5


def test_a_name_is_not_read_as_markup() -> None:
    text = terminal_text(replace(full(), name="[bold]x[/bold]", model_name="[red]m[/red]"))
    assert "[bold]x[/bold]" in text
    assert "[red]m[/red]" in text


def test_headlines_say_what_was_removed_what_it_cost_and_what_it_gained() -> None:
    removed, cost, gained = headlines(full())
    assert removed.value == "19.0 %"
    assert "whole blocks gone: 4 attention, 1 MLP" in removed.details
    assert cost.value == "+55.9 %"
    assert cost.quantity == ON_WIKITEXT2.replace("Perplexity:", "perplexity on")
    assert (gained.value, gained.quantity) == (f"1.23{TIMES}", "prefill speed")


def test_headlines_fall_back_to_what_is_known() -> None:
    _, cost, gained = headlines(bare())
    assert (cost.value, cost.quantity) == ("", "not measured")
    assert (gained.value, gained.quantity) == ("", "not measured")
    known = replace(bare(), dense_importance={"heads": 10.0})
    assert headlines(known)[1].quantity == "calibration perplexity"


def test_numbers_are_written_for_people() -> None:
    assert number(1234567.891) == "1,234,568"
    assert number(float("nan")) == number(None) == NOTHING
    assert number(-0.5) == f"{MINUS}0.50"
    assert relative_change(10, 50) == f"{TIMES}5.0"
    assert relative_change(10, 9) == f"{MINUS}10.0 %"
    assert relative_change(0, 9) == relative_change(None, 1) == ""


def test_scores_that_are_no_perplexities_may_be_of_any_size() -> None:
    assert score_text(9.87654, "perplexity") == "9.877"
    assert score_text(0.000012345, "block_influence") == "1.234e\N{MINUS SIGN}05"
    assert score_text(float("nan"), "block_influence") == NOTHING
    assert tick_text(0.00002) == "2e\N{MINUS SIGN}05"
    assert tick_text(-1234.5) == "\N{MINUS SIGN}1,234.5"


def test_a_record_without_anything_is_a_record() -> None:
    nothing = Record(1, (), (), (), None, 0.0, {})
    report = replace(bare(), steps=(), dense=nothing, pruned=nothing)
    assert [row.label for row in dense_and_pruned(report)] == ["Parameters", "Removed"]
