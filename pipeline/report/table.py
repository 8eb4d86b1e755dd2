"""What came of a run, in a terminal: dense beside pruned and recovered, and the same in a line."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipeline.report.data import RunReport
from pipeline.report.dense_and_pruned import Row, dense_and_pruned
from pipeline.report.wording import number, relative_change

MEASURED_ON = ("Perplexity: ", "Calibration perplexity: ", "Accuracy: ")
"""How labels begin that say what they were measured on."""
CHANGE_STYLES = {True: "cyan", False: "yellow", None: ""}


def dense_and_pruned_table(report: RunReport) -> Table:
    """Dense, pruned, the change and recovered, for everything that was measured."""
    rows = dense_and_pruned(report)
    is_recovered = any(row.recovered for row in rows)
    short = _shortened([row.label for row in rows]) if is_recovered else {}
    measured = [row.label for row in rows if short.get(row.label, row.label) != row.label]
    table = Table(
        title=Text(report.name),
        title_justify="left",
        caption=Text("\n".join(measured)) if measured else None,
        caption_justify="left",
    )
    table.add_column(Text(report.model_name), overflow="fold")
    for heading in ("dense", "pruned", "change", *(["recovered"] if is_recovered else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        label = Text(("  " if row.indent else "") + short.get(row.label, row.label))
        change = Text(_narrow(row, row.change, row.interval), style=CHANGE_STYLES[row.better])
        back, _, interval = row.back.partition(" (")
        recovered = [Text(_narrow(row, f"{row.recovered}\n{back}".strip(), interval))]
        table.add_row(
            label, Text(row.dense), Text(row.pruned), change, *(recovered if is_recovered else [])
        )
    return table


def _narrow(row: Row, value: str, interval: str) -> str:
    """An interval below, else there is no room for labels; of parts of a mean the page has it."""
    return f"{value}\n{interval.strip('()')}" if interval and not row.indent else value


def _shortened(labels: Sequence[str]) -> dict[str, str]:
    """Labels without how it was measured, for which a fifth column leaves no room."""
    long = [label for label in labels if label.startswith(MEASURED_ON)]
    whats = {label: label.partition(", ")[0].partition(" of ")[0] for label in long}
    times = Counter(whats.values())
    return {
        label: what if times[what] == 1 else label.rpartition(", ")[0]
        for label, what in whats.items()
    }


def in_a_line(report: RunReport) -> str:
    """What was removed and what that cost: the first perplexity, and the accuracy."""
    said = [f"{report.state.ratio_percent:.1f} % removed"]
    text = next(iter(report.texts), None)
    before, after = (text.dense, text.pruned) if text else report.calibration_perplexities
    name = "perplexity" if text else "calibration perplexity"
    if text and text.recovered:
        name, after = "perplexity after recovery", text.recovered
    if after is not None:
        change = relative_change(before, after)
        said.append(f"{name} {number(after)}" + (f" ({change})" if change else ""))
    for watched, (before, after) in report.only_watched.items():
        said.append(f"recovery: {number(before)} → {number(after)} on {watched}")
    accuracy = next((row for row in dense_and_pruned(report) if "Accuracy" in row.label), None)
    if accuracy:
        name, value, change = "accuracy", accuracy.pruned, accuracy.change
        if accuracy.recovered:
            name, value = "accuracy after recovery", accuracy.recovered
            back, _, _ = accuracy.back.partition(" (")
            change = f"{back} by it" if back else ""
        said.append(f"{name} {value}" + (f" ({change})" if change else ""))
    return ", ".join(said)
