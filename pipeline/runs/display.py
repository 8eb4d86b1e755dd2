"""What a person sees while a run goes on, and the table at its end."""

from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from pipeline.pruning.records import StepRecord
from pipeline.recovery.base import Progress as Learning
from pipeline.stages import is_main


class Display(Protocol):
    """Is told how a run goes."""

    def stage_started(self, name: str) -> None:
        """A stage begins to run here."""

    def stage_ended(self, name: str, status: str, seconds: float) -> None:
        """A stage ended: new, reused or failed."""

    def step(self, step: StepRecord, computed: bool) -> None:
        """A step of the run is on disk; ``computed`` now or found there."""

    def scored(self, share: float) -> None:
        """This share of the present step's scoring was done since the last call."""

    def learning(self, technique: str, progress: Learning) -> None:
        """A technique of recovery has come so far."""

    def note(self, text: str) -> None:
        """Something that a person may want to know."""

    def warning(self, text: str) -> None:
        """Something that a person must know."""


class Quiet:
    """For output that no person watches: warnings only."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def stage_started(self, name: str) -> None: ...  # noqa: D102
    def stage_ended(self, name: str, status: str, seconds: float) -> None: ...  # noqa: D102
    def step(self, step: StepRecord, computed: bool) -> None: ...  # noqa: D102
    def scored(self, share: float) -> None: ...  # noqa: D102
    def learning(self, technique: str, progress: Learning) -> None: ...  # noqa: D102
    def note(self, text: str) -> None: ...  # noqa: D102

    def warning(self, text: str) -> None:  # noqa: D102
        self.console.print(f"warning: {text}", soft_wrap=True)


class JobLog:
    """For the log of a job: a line for everything, with nothing that moves.

    ``check`` is called between steps and within them, and stops the stage by raising.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check
        self.noted: str | None = None

    def stage_started(self, name: str) -> None:  # noqa: D102
        self.check()
        self._print(f"{name} started")

    def stage_ended(self, name: str, status: str, seconds: float) -> None:  # noqa: D102
        self._print(f"{name} {status}" + (f" in {seconds:.0f} s" if status != "reused" else ""))

    def step(self, step: StepRecord, computed: bool) -> None:  # noqa: D102
        if computed:
            self._print(step_line(step))
        self.check()

    def scored(self, share: float) -> None:  # noqa: ARG002, D102
        self.check()

    def learning(self, technique: str, progress: Learning) -> None:  # noqa: D102
        if progress.held_out:
            self._print(learning_line(technique, progress))
        self.check()

    def note(self, text: str) -> None:  # noqa: D102
        if text != self.noted:
            self.noted = text
            self._print(text)
        self.check()

    def warning(self, text: str) -> None:  # noqa: D102
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201


class Terminal(Quiet):
    """For a terminal: one line a step, and under it a bar with the time left."""

    def __init__(self, console: Console, target_ratio: float) -> None:
        super().__init__(console)
        self.target_ratio = target_ratio
        self.ratio = 0.0
        self.last_gain = 0.0
        self.noted: str | None = None
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=None)

    def stage_started(self, name: str) -> None:  # noqa: D102
        self.bar.start()
        total = self.target_ratio if is_main(name) else None
        self.bar.reset(self.task, description=name, total=total)

    def stage_ended(self, name: str, status: str, seconds: float) -> None:  # noqa: D102
        self.bar.stop()
        took = f" in {seconds:.0f} s" if status == "new" else ""
        self.console.print(Text.assemble((name, "bold"), f" {status}{took}"))

    def step(self, step: StepRecord, computed: bool) -> None:  # noqa: D102
        self.last_gain, self.ratio = step.ratio_percent - self.ratio, step.ratio_percent
        self.bar.update(self.task, completed=min(self.ratio, self.target_ratio))
        self.console.print(step_line(step) + ("" if computed else "  (found)"))

    def scored(self, share: float) -> None:  # noqa: D102
        self.bar.advance(self.task, share * self.last_gain)

    def learning(self, technique: str, progress: Learning) -> None:  # noqa: D102
        told = "" if progress.loss is None else f", loss {progress.loss:.3f}"
        self.bar.update(
            self.task,
            description=f"{technique}{told}",
            total=progress.total_tokens,
            completed=progress.tokens,
        )
        if progress.held_out:
            self.console.print(learning_line(technique, progress))

    def note(self, text: str) -> None:  # noqa: D102
        if text != self.noted:
            self.noted = text
            self.console.print(text)


def learning_line(technique: str, progress: Learning) -> str:
    """How far a technique has come, in one line."""
    held_out = "  ".join(f"{name} {ppl:.2f}" for name, ppl in (progress.held_out or {}).items())
    loss = "" if progress.loss is None else f"  loss {progress.loss:.4f}"
    return f"{technique}  {progress.tokens:,} tokens{loss}  held-out perplexity: {held_out}"


def step_line(step: StepRecord) -> str:
    """A step in one line."""
    chosen, decision = step.chosen, step.decision
    left = "removed" if chosen.unit.is_whole else f"to {chosen.width_after} {chosen.unit.counts}"
    return (
        f"step {step.step:3d}  {f'{chosen.unit.label} {chosen.layer}':<18} {left:<17} "
        f"{decision.criterion} {decision.score:9.3f}  ratio {step.ratio_percent:6.2f} %"
    )
