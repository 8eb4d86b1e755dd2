"""The run as one HTML file that needs nothing else: no network, no server, no other file."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.measure.record import PARTS
from pipeline.pruning.records import StepRecord
from pipeline.report import colours
from pipeline.report.charts import figures_of_run
from pipeline.report.charts.run import step_text
from pipeline.report.data import RunReport, finite, mean_accuracy
from pipeline.report.dense_and_pruned import accuracy_text, dense_and_pruned
from pipeline.report.headline import headlines
from pipeline.report.pages.figures import shown
from pipeline.report.pages.html import render, unless_secret
from pipeline.report.wording import NOTHING, dimension_name, number, removal, score_name, score_text
from pipeline.settings.flat import flat


def run_page(report: RunReport) -> str:
    """The page's HTML. Everything that comes from the run is escaped."""
    rows = dense_and_pruned(report)
    return render(
        "run.html.j2",
        report=report,
        headlines=headlines(report),
        sections=shown(figures_of_run(report)),
        states=list(_states(report)),
        rows=rows,
        is_recovered=any(row.recovered for row in rows),
        columns=_step_columns(report),
        step_rows=[_step_row(report, step) for step in report.steps],
        settings=list(_settings(report)),
        facts=list(_facts(report)),
    )


def _states(report: RunReport) -> Iterator[dict[str, object]]:
    """What the slider says after every step, and the ratio that it then points at."""
    yield {"text": "dense model", "ratio": 0.0}
    for step in report.steps:
        ratio = step.ratio_percent
        text = f"after {step_text(report, step.step)}, {ratio:.1f} % removed"
        yield {"text": text, "ratio": ratio}


@dataclass(frozen=True, slots=True)
class Value:
    """A cell of the table of steps."""

    text: str
    sort: float | str
    """What the column is sorted by; empty where there is no value, which goes last."""
    colour: str = ""
    """Of a mark before the text."""


def _step_columns(report: RunReport) -> list[str]:
    score = score_name(report.criterion)
    columns = ["Step", "Dimension", "What went", score[0].upper() + score[1:], "Removed",
               "Parameters"]  # fmt: skip
    if report.records:
        columns += [
            f"{name} ({protocol})" if protocol else name
            for name, protocol in (
                ("Perplexity", report.probed_text),
                ("Accuracy", report.probed_tasks),
            )
        ]
        columns += _probed_tasks(report)
        columns += [
            f"{name} (ms)" for workload in report.workloads for name in _timed(report, workload)
        ]
    return columns


def _probed_tasks(report: RunReport) -> list[str]:
    """Tasks that have a column beside that of their mean; none where there is one task alone."""
    names = [task.task for record in report.records.values() for task in record.tasks]
    return list(dict.fromkeys(names)) if len(set(names)) > 1 else []


def _timed(report: RunReport, workload: str) -> list[str]:
    """Names of the two times of a workload; of the only one, without its name."""
    several = len(report.workloads) > 1
    return [f"{workload}: {part}" if several else part.capitalize() for part in PARTS]


def _step_row(report: RunReport, step: StepRecord) -> list[Value]:
    dimension = step.dimension
    row = [
        Value(str(step.step), step.step),
        Value(
            dimension_name(dimension),
            report.dimensions.index(dimension),
            colours.dimension(dimension),
        ),
        Value(removal(step.chosen, report.shape), step.chosen.layer),
        _score(step),
        Value(f"{step.ratio_percent:.2f} %", step.ratio_percent),
        Value(f"{step.params:,}", step.params),
    ]
    return [*row, *_measured(report, step)] if report.records else row


def _measured(report: RunReport, step: StepRecord) -> Iterator[Value]:
    record = report.records.get(step.step)
    yield _number(record.ppl if record else None, 3)
    tasks = record.tasks if record else ()
    for averaged in (tasks, *([t for t in tasks if t.task == n] for n in _probed_tasks(report))):
        accuracy = mean_accuracy(averaged)
        yield Value(accuracy_text(accuracy), accuracy[0] if accuracy else "")
    for workload in report.workloads:
        latency = record.latency_of(workload) if record else None
        for part in PARTS:
            yield _number(latency.timing(part).median_ms if latency else None, 2)


def _number(value: float | None, digits: int) -> Value:
    known = finite(value)
    return Value(NOTHING, "") if known is None else Value(number(known, digits), known)


def _score(step: StepRecord) -> Value:
    score, criterion = step.decision.score, step.decision.criterion
    return Value(score_text(score, criterion), "" if finite(score) is None else score)


def _settings(report: RunReport) -> Iterator[tuple[str, str]]:
    for key, value in flat(report.settings).items():
        yield key, unless_secret(key, value, NOTHING if value is None else str(value))


def _facts(report: RunReport) -> Iterator[tuple[str, str]]:
    """What to know of the run besides its settings."""
    for name, value in report.counts.items():
        yield name, number(value) if isinstance(value, float) else str(value)
    if (share := finite(report.probe_share)) is not None:
        yield "share of the time spent on probes", f"{share * 100:.1f} %"
    record = report.record_of("pruned") or report.record_of("dense")
    for name, value in (record.made_by if record else {}).items():
        yield f"measured with {name}", str(value)
