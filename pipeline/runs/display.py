"""What a person sees while a run goes on, and the table at its end."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pipeline.pruning.records import StepRecord
from pipeline.recovery.base import Progress as Learning
from pipeline.runs.time_left import TimeLeft
from pipeline.screen import duration

BAR_WIDTH = 24


class Display(Protocol):
    """Is told how a run goes."""

    def stage_started(self, name: str) -> None:
        """A stage begins to run here."""

    def stage_ended(self, name: str, status: str, seconds: float) -> None:
        """A stage ended: new, reused or failed."""

    def step(self, step: StepRecord, computed: bool) -> None:
        """A step of the run is on disk; ``computed`` now or found there."""

    def ahead(self, ahead: Mapping[str, float]) -> None:
        """What the stage has to do from now on, by kind of work."""

    def doing(self, what: str) -> None:
        """What the stage does now."""

    def progress(self, kind: str, amount: float) -> None:
        """So much of a kind of work was done."""

    def learning(self, technique: str, progress: Learning) -> None:
        """A technique of recovery has come so far."""

    def note(self, text: str) -> None:
        """Something that a person may want to know."""

    def warning(self, text: str) -> None:
        """Something that a person must know."""


TOLD_EVERY, TOLD_EVERY_S = 0.1, 20.0
"""Share of a stage, and seconds, after which the log of a job tells again how long it takes."""


class Quiet:
    """For output that no person watches: warnings only."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def stage_started(self, name: str) -> None: ...  # noqa: D102
    def stage_ended(self, name: str, status: str, seconds: float) -> None: ...  # noqa: D102
    def step(self, step: StepRecord, computed: bool) -> None: ...  # noqa: D102
    def ahead(self, ahead: Mapping[str, float]) -> None: ...  # noqa: D102
    def doing(self, what: str) -> None: ...  # noqa: D102
    def progress(self, kind: str, amount: float) -> None: ...  # noqa: D102
    def learning(self, technique: str, progress: Learning) -> None: ...  # noqa: D102
    def note(self, text: str) -> None: ...  # noqa: D102

    def warning(self, text: str) -> None:  # noqa: D102
        self.console.print(f"warning: {text}", soft_wrap=True)


class JobLog:
    """For a file or pipe, e.g. a job's log: a line for everything, with nothing that moves.

    ``check`` is called between steps and within them, and stops the stage by raising. Lines go to
    ``console``, or to the standard output.
    """

    def __init__(self, check: Callable[[], None], console: Console | None = None) -> None:
        self.check, self.console = check, console
        self.noted: str | None = None
        self.left, self.next_share, self.told = TimeLeft(), 0.0, 0.0

    def stage_started(self, name: str) -> None:  # noqa: D102
        self.check()
        self._print(f"{name} started")
        self.left.begin()
        self.next_share, self.told = TOLD_EVERY, time.monotonic()

    def stage_ended(self, name: str, status: str, seconds: float) -> None:  # noqa: D102
        self._print(f"{name} {status}" + (f" in {seconds:.0f} s" if status != "reused" else ""))

    def step(self, step: StepRecord, computed: bool) -> None:  # noqa: D102
        if computed:
            self._print(step_line(step))
        self.check()

    def ahead(self, ahead: Mapping[str, float]) -> None:  # noqa: D102
        self.left.ahead(ahead)

    def doing(self, what: str) -> None:  # noqa: ARG002, D102
        self.left.doing()
        self.check()

    def progress(self, kind: str, amount: float) -> None:  # noqa: D102
        self.left.progress(kind, amount)
        share = self.left.share
        is_due = time.monotonic() - self.told >= TOLD_EVERY_S
        if is_due and share is not None and self.next_share <= share < 1:
            self.next_share, self.told = share + TOLD_EVERY, time.monotonic()
            self._print(f"{kind}: {share:.0%} of the stage, {in_words(self.left)}")
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
        if self.console:
            self.console.print(text, soft_wrap=True)
        else:
            print(text, flush=True)  # noqa: T201


class Terminal(Quiet):
    """For a terminal: one line a step, and under it what is done now, and the time left."""

    def __init__(self, console: Console, target_ratio: float) -> None:
        super().__init__(console)
        self.target_ratio = target_ratio
        self.noted: str | None = None
        self.stage = self.so_far = ""
        self.left = TimeLeft()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            _Left(self.left),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=None)

    def stage_started(self, name: str) -> None:  # noqa: D102
        self.left.begin()
        self.stage, self.so_far = name, ""
        self.bar.reset(self.task, description=name, total=None)
        self.bar.start()

    def stage_ended(self, name: str, status: str, seconds: float) -> None:  # noqa: D102
        self.bar.stop()
        took = f" in {seconds:.0f} s" if status == "new" else ""
        self.console.print(Text.assemble((name, "bold"), f" {status}{took}"))

    def step(self, step: StepRecord, computed: bool) -> None:  # noqa: D102
        self.so_far = f" {step.ratio_percent:.1f} of {self.target_ratio:g} %,"
        self.console.print(step_line(step) + ("" if computed else "  (found)"))

    def ahead(self, ahead: Mapping[str, float]) -> None:  # noqa: D102
        self.left.ahead(ahead)

    def doing(self, what: str) -> None:  # noqa: D102
        self.left.doing()
        self.bar.update(self.task, description=f"{self.stage}:{self.so_far} {what}")

    def progress(self, kind: str, amount: float) -> None:  # noqa: D102
        self.left.progress(kind, amount)
        if (share := self.left.share) is not None:
            self.bar.update(self.task, total=1.0, completed=share)

    def learning(self, technique: str, progress: Learning) -> None:  # noqa: D102
        if progress.loss is not None:
            self.so_far = f" loss {progress.loss:.3f},"
            self.doing("learning")
        if progress.held_out:
            self.console.print(learning_line(technique, progress))

    def note(self, text: str) -> None:  # noqa: D102
        if text != self.noted:
            self.noted = text
            self.console.print(text)


def display_on(console: Console, target_ratio: float) -> Display:
    """What suits a terminal, a file or pipe, or nobody."""
    if console.quiet:
        return Quiet(console)
    return Terminal(console, target_ratio) if console.is_terminal else JobLog(lambda: None, console)


class _Left(ProgressColumn):
    """Share and time left, at the moment at which they are shown."""

    def __init__(self, left: TimeLeft) -> None:
        super().__init__()
        self.left = left

    def render(self, task: Task) -> Text:  # noqa: ARG002
        """As text."""
        share = self.left.share
        return Text("" if share is None else f"{share:4.0%}, {in_words(self.left)}")


def in_words(left: TimeLeft) -> str:
    """The time left, for a person."""
    seconds = left.seconds
    return "time left not known yet" if seconds is None else f"about {duration(seconds)} left"


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
