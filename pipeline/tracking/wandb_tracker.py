"""Weights & Biases as a mirror of a run. It may be missing, away, slow or dying: the run goes on.

A thread of its own makes every call. What goes wrong there is told once, in one line, and nothing
waits for it longer than the constants here say.
"""

import atexit
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipeline.tracking.metrics import Metrics, Value
from pipeline.tracking.tracker import Exported
from pipeline.tracking.wandb_reach import one_line
from pipeline.tracking.wandb_session import Session, WandbRun

OPEN_WAIT_S = 5.0
"""How long a run waits to say where it can be watched. Rows are kept until W&B is open."""
FINISH_WAIT_S = 14.0
TICK_S = 0.5
MOST_REOPENINGS = 3
"""Of a wandb-core that dies again and again."""

Act = Callable[[], None]


class WandbTracker:
    """A ``Tracker`` that never raises and never blocks.

    ``note`` gets one line about where the run is shown, and one about the first thing that went
    wrong; it is only called from the thread that calls the tracker.
    """

    def __init__(self, target: WandbRun, note: Callable[[str], None]) -> None:
        self._note = note
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._acts: queue.SimpleQueue[Act] = queue.SimpleQueue()
        self._session = Session(target, self._notes.put)
        self._told_failure = False
        self._reopenings = 0
        self._opened = threading.Event()
        self._finished = False
        atexit.register(self._finish_forgotten)
        self._thread = threading.Thread(target=self._work, name="wandb-tracker", daemon=True)
        self._thread.start()
        self._opened.wait(OPEN_WAIT_S)
        self._tell()

    def log(self, metrics: Metrics) -> None:
        """Send a row, unless W&B has its step from an earlier process."""
        row = dict(metrics)
        self._submit(lambda: self._session.log(row))

    def summary(self, values: Metrics) -> None:
        """Set values of the summary."""
        kept = dict(values)
        self._submit(lambda: self._session.summary(kept))

    def table(
        self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Value | None]]
    ) -> None:
        """Send a table."""
        kept = tuple(rows)
        self._submit(lambda: self._session.table(name, columns, kept))

    def picture(self, name: str, path: Path) -> None:
        """Send a picture."""
        self._submit(lambda: self._session.picture(name, path))

    def page(self, name: str, path: Path) -> None:
        """Send a page."""
        self._submit(lambda: self._session.page(name, path))

    def files(self, name: str, paths: Sequence[Path]) -> None:
        """Send an artifact."""
        kept = tuple(paths)
        self._submit(lambda: self._session.files(name, kept))

    def alert(self, title: str, text: str) -> None:
        """Have W&B send it to where the user reads such things."""
        self._submit(lambda: self._session.alert(title, text))

    def model(self, exported: Exported) -> None:
        """Note an artifact."""
        self._submit(lambda: self._session.model(exported))

    def preempting(self) -> None:
        """Have W&B show the run as preempted."""
        self._acts.put(self._session.preempting)

    def finish(self, failed: bool) -> None:
        """Finish the run. Returns within 15 s, whatever state the server is in."""
        if self._finished:
            return
        self._finished = True
        atexit.unregister(self._finish_forgotten)
        self._acts.put(lambda: self._end(failed))
        self._thread.join(FINISH_WAIT_S)
        if self._thread.is_alive():
            self._told_failure = True  # what breaks now is broken by the next line
            self._session.abandon()
            self._thread.join(1.0)
            self._notes.put(f"W&B did not finish within {FINISH_WAIT_S:g} s; the run goes on")
        self._tell()

    def _submit(self, act: Act) -> None:
        self._acts.put(act)
        self._tell()

    def _tell(self) -> None:
        while not self._notes.empty():
            self._note(self._notes.get())

    def _finish_forgotten(self) -> None:
        self.finish(failed=True)

    def _work(self) -> None:
        self._attempt(self._session.open)
        # Registered after W&B's own hook and so called before it: that one would report success.
        atexit.unregister(self._finish_forgotten)
        atexit.register(self._finish_forgotten)
        self._opened.set()
        while self._session.is_open:
            try:
                act = self._acts.get(timeout=TICK_S)
            except queue.Empty:
                act = self._session.check
            self._attempt(act)
        self._attempt(self._session.close)

    def _end(self, failed: bool) -> None:
        self._attempt(lambda: self._session.finish(failed))
        self._session.close()

    def _attempt(self, act: Act) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 (W&B also raises SystemExit)
            if self._session.lost_core() and self._reopenings < MOST_REOPENINGS:
                self._reopenings += 1
                self._attempt(self._session.reopen)
                self._attempt(act)
            else:
                self._tell_failure(error)

    def _tell_failure(self, error: BaseException) -> None:
        if self._told_failure:
            return
        self._told_failure = True
        if isinstance(error, ModuleNotFoundError) and error.name == "wandb":
            self._notes.put("W&B is not installed (pip install wandb); the run goes on without it")
        else:
            self._notes.put(f"W&B: {one_line(error)}; the run goes on, its folder has all of it")
