"""One Weights & Biases run as this process writes it: opened, opened again, finished.

Everything here may raise or take its time; ``wandb_tracker`` keeps that away from the run.

W&B's own process (wandb-core) does the writing. A scheduler's warning before a preemption reaches
that process too and ends it at once; then the same run is opened again. Whoever opens it finds out
first which steps W&B has, from the server or from the folders of offline runs, and skips them.
"""

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.recovery import techniques
from pipeline.tracking.metrics import (
    RATIO,
    RECOVER,
    STEP,
    Metrics,
    Value,
    is_detail,
    series_of,
)
from pipeline.tracking.tracker import Exported
from pipeline.tracking.wandb_reach import one_line, why_offline, why_unreachable
from pipeline.tracking.wandb_sent import SentSteps

if TYPE_CHECKING:
    import wandb

INIT_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 10.0
FLUSH_INTERVAL_S = 0.2
"""How often wandb-core writes new rows to disk. Its default, 15 s, loses them with the process."""

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True, slots=True)
class WandbRun:
    """The W&B run that mirrors a run, and how it is presented there."""

    run_id: str
    """From ``new_run_id``, kept with the run: the same in every process that works on it."""
    folder: Path
    """The run's folder. W&B keeps everything in ``wandb`` below it."""
    project: str
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    """Shown with the run, so without secrets."""
    mode: Mode | None = None
    """None leaves it to W&B's own settings (``WANDB_MODE``), and to whether it can be reached."""


def new_run_id() -> str:
    """An id for a new W&B run."""
    return secrets.token_hex(6)


class Session:
    """Opens, writes and finishes a ``WandbRun``. ``note`` gets what a person may want to know."""

    def __init__(self, target: WandbRun, note: Callable[[str], None]) -> None:
        self._target = target
        self._note = note
        self._folder = target.folder.absolute() / "wandb"
        self._sent: SentSteps | None = None
        self._environment = _Environment()
        self._core: subprocess.Popen[bytes] | None = None
        self._run: wandb.Run | None = None
        self._rows: dict[int, Metrics] = {}
        self._defined: set[str] = set()
        """Names of which W&B knows how to show them."""
        self._summary: dict[str, Value] = {}
        self._step_handed_over = -1
        self._preempting = False
        self._abandoned = False

    @property
    def is_open(self) -> bool:
        """Whether there is a run to write to."""
        return self._run is not None

    def open(self) -> None:
        """Open the run, online where that is possible, and send what W&B does not have yet."""
        if self.is_open:
            return
        self._sent = SentSteps(self._folder)
        settings = self._start_core()
        if (self._target.mode or settings.mode) == "disabled":
            self._note("W&B is switched off (mode disabled)")
            self._stop_core()
            return
        away = why_offline(self._target.mode, settings)
        if away is None:
            try:
                self._run = self._init(self._target.mode)
            except Exception as error:  # noqa: BLE001 (W&B raises many kinds; offline helps with all)
                away = f"it could not be opened: {one_line(error)}"
                self._stop_core()
                self._start_core()
        if self._run is None:
            self._run = self._init("offline")
        self._note(self._whereabouts(self._run, away))
        self._sent.open()
        self._step_handed_over = (
            self._sent.step if self._run.offline else _step_on_server(self._run)
        )
        self._define_axes(self._run)
        self._catch_up(self._run)

    def reopen(self) -> None:
        """Open the run again after wandb-core died."""
        self._note("W&B's own process ended; starting it again")
        self._stop_core()
        self.open()

    def log(self, metrics: Metrics) -> None:
        """Send what makes curves of a row, unless W&B has its step."""
        self._rows[int(metrics[STEP])] = series_of(metrics)
        self._send(int(metrics[STEP]))

    def summary(self, values: Metrics) -> None:
        """Set values of the summary."""
        self._summary.update(values)
        self._opened.summary.update(dict(values))

    def table(
        self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Value | None]]
    ) -> None:
        """Send a table."""
        import wandb

        data = [list(row) for row in rows]
        digest = _digest(json.dumps([list(columns), data]).encode())
        if self._is_shown(name, digest):
            return
        self._check_server()
        self._opened.log({name: wandb.Table(columns=list(columns), data=data)})
        self._note_shown(name, digest)

    def picture(self, name: str, path: Path) -> None:
        """Send a picture."""
        import wandb

        self._show(name, path, lambda: wandb.Image(str(path)))

    def page(self, name: str, path: Path) -> None:
        """Send a page."""
        import wandb

        self._show(name, path, lambda: wandb.Html(str(path), inject=False))

    def _show(self, name: str, path: Path, made: "Callable[[], object]") -> None:
        digest = _digest(path.read_bytes())
        if self._is_shown(name, digest):
            return
        self._check_server()
        self._opened.log({name: made()})
        self._note_shown(name, digest)

    def files(self, name: str, paths: Sequence[Path]) -> None:
        """Send an artifact of files."""
        import wandb

        digest = _digest(b"".join(path.read_bytes() for path in paths))
        if self._is_shown(name, digest):
            return
        self._check_server()
        artifact = wandb.Artifact(name, type="decisions")
        for path in paths:
            artifact.add_file(str(path), policy="immutable")
        self._opened.log_artifact(artifact)
        self._note_shown(name, digest)

    def alert(self, title: str, text: str) -> None:
        """Have W&B tell the user."""
        self._opened.alert(title, text)

    def model(self, exported: Exported) -> None:
        """Note an artifact: its files where they are, or uploaded."""
        import wandb

        if self._is_shown(exported.name, exported.key):
            return
        self._check_server()
        artifact = wandb.Artifact(exported.name, type="model", metadata=dict(exported.facts))
        if exported.upload:
            artifact.add_dir(str(exported.folder))
        else:
            artifact.add_reference(exported.folder.absolute().as_uri())
        self._opened.log_artifact(artifact, aliases=list(exported.aliases))
        self._note_shown(exported.name, exported.key)

    def preempting(self) -> None:
        """Have W&B show the run as preempted, not as crashed."""
        self._preempting = True
        self._opened.mark_preempting()

    def check(self) -> None:
        """Raise ``ConnectionError`` if wandb-core died."""
        if self._core is not None and self._core.poll() is not None:
            raise ConnectionError("wandb-core ended")

    def finish(self, failed: bool) -> None:
        """Finish the run. ``close`` is to follow."""
        run = self._opened
        try:
            run.finish(exit_code=int(failed or self._preempting))
        except TimeoutError:
            self._note(
                f"W&B did not confirm everything within {FINISH_TIMEOUT_S:g} s; "
                f"later: multipruner sync {self._folder.parent}"
            )
        else:
            self._all_arrived(run)

    def lost_core(self) -> bool:
        """Whether wandb-core ended without being asked to."""
        if self._core is None or self._abandoned:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._core.wait(0.2)  # a broken connection can be seen a moment before the end is
        return self._core.returncode is not None

    def abandon(self) -> None:
        """Kill wandb-core, from another thread, so that nothing here can wait for it any more."""
        self._abandoned = True
        if self._core is not None:
            self._core.kill()

    def close(self) -> None:
        """Leave nothing of W&B in this process."""
        self._stop_core()

    @property
    def _opened(self) -> "wandb.Run":
        if self._run is None:
            raise RuntimeError("no W&B run is open")
        return self._run

    def _start_core(self) -> "wandb.Settings":
        if self._abandoned:
            raise RuntimeError("given up")
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._environment.set(
            # Content of tables waits here to be synced; by default it would be under the home
            # folder, where another host does not find it.
            WANDB_DATA_DIR=str(self._folder / "data"),
            WANDB_CACHE_DIR=str(self._folder / "cache"),
            # The wandb-core of a parent process, or of whoever submitted the job.
            WANDB_SERVICE=None,
        )
        # W&B replaces both to learn of the exit status, and never takes that back.
        kept_exit, kept_hook = sys.exit, sys.excepthook
        try:
            setup = wandb.setup(
                wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=INIT_TIMEOUT_S,
                    finish_timeout=FINISH_TIMEOUT_S,
                    finish_timeout_raises=True,
                    x_transaction_log_flush_interval=FLUSH_INTERVAL_S,
                )
            )
        finally:
            sys.exit, sys.excepthook = kept_exit, kept_hook
        self._core = _core_process(setup)
        return setup.settings

    def _stop_core(self) -> None:
        self._run = None
        if wandb := sys.modules.get("wandb"):
            # It raises, and may ask the process to exit, where wandb-core is dead.
            with contextlib.suppress(Exception, SystemExit):
                wandb.teardown()
        if self._core is not None:
            self._core.kill()
            self._core.wait()
            self._core = None
        self._environment.restore()

    def _init(self, mode: Mode | None) -> "wandb.Run":
        import wandb

        target = self._target
        return wandb.init(
            id=target.run_id,
            resume="allow",
            project=target.project,
            entity=target.entity,
            name=target.name,
            group=target.group,
            job_type=target.job_type,
            tags=target.tags or None,
            config=dict(target.config),
            dir=str(target.folder.absolute()),
            mode=mode,
        )

    def _whereabouts(self, run: "wandb.Run", away: str | None) -> str:
        if not run.offline:
            return f"W&B: {run.url}"
        return (
            f"W&B is offline ({away or 'as chosen'}); to send the run later: "
            f"multipruner sync {self._folder.parent}"
        )

    def _define_axes(self, run: "wandb.Run") -> None:
        # W&B's own step counts rows and restarts with the process; it is never passed.
        # Curves are over the share that is gone: so runs of several methods and ratios lie on one
        # another.
        self._defined.clear()
        run.define_metric(STEP, hidden=True)
        run.define_metric(RATIO, step_metric=STEP, hidden=True)
        run.define_metric("prune/*", step_metric=RATIO)
        run.define_metric("probe/*", step_metric=RATIO)
        for technique in techniques():
            prefix = f"{RECOVER}/{technique}"
            run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/tokens")

    def _catch_up(self, run: "wandb.Run") -> None:
        for step in sorted(self._rows):
            self._send(step)
        if self._summary:
            run.summary.update(self._summary)
        if self._preempting:
            run.mark_preempting()

    def _send(self, step: int) -> None:
        if step > self._step_handed_over:
            self._hide_details(self._rows[step])
            self._opened.log(dict(self._rows[step]))
            self._step_handed_over = step

    def _hide_details(self, row: Metrics) -> None:
        """Have W&B make no panels of its own of what is of little use in one."""
        for name in row.keys() - self._defined - {STEP, RATIO}:
            if is_detail(name):
                self._opened.define_metric(name, step_metric=RATIO, hidden=True)
        self._defined |= row.keys()

    def _is_shown(self, name: str, digest: str) -> bool:
        """Whether an earlier process of the run has sent this table or picture."""
        return self._sent is not None and self._sent.shown.get(name) == digest

    def _note_shown(self, name: str, digest: str) -> None:
        if self._sent is not None:
            self._sent.shown[name] = digest  # written when all has arrived

    def _check_server(self) -> None:
        # Sending a table asks the server and waits 20 s for a dead one.
        settings = self._opened.settings
        if not self._opened.offline and (away := why_unreachable(settings)):
            raise OSError(away)

    def _all_arrived(self, run: "wandb.Run") -> None:
        if self._sent is None:
            return
        if not run.offline and self._step_handed_over >= self._sent.step:
            self._sent.leave_out_all_logs()
        self._sent.close(self._step_handed_over)


class _Environment:
    """Environment variables that can be put back."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def set(self, **variables: str | None) -> None:
        for name, value in variables.items():
            self._before.setdefault(name, os.environ.get(name))
            _set_variable(name, value)

    def restore(self) -> None:
        for name, value in self._before.items():
            _set_variable(name, value)
        self._before.clear()


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _core_process(setup: Any) -> subprocess.Popen[bytes] | None:
    # Private, but W&B offers no other way to learn that its process died, or to end it.
    process: subprocess.Popen[bytes] | None = setup._connection and setup._connection._proc._process
    return process


def _step_on_server(run: "wandb.Run") -> int:
    step = run.summary.get(STEP)  # type: ignore[no-untyped-call]
    return int(step) if isinstance(step, int | float) else -1
