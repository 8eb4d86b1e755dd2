"""A job of a tiny run that is done in the process of the test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support_inputs import A_FIFTH, TINY, configured, save_model, write_tokens

from pipeline.executors import executor_named
from pipeline.executors.submission import Submission, Task, record_attempt, want
from pipeline.jobs.job import ThisJob
from pipeline.plan.preflight import check
from pipeline.plan.run import Run
from pipeline.pruning.records import StepRecord
from pipeline.runs.display import JobLog
from pipeline.runs.interruption import Interruption
from pipeline.store.processes import Process

ARGUMENTS = (
    *TINY,
    *A_FIFTH,
    "cluster=local",
    "tracking=local",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to launch from, with a model and tokens. No signal is taken in from there."""
    return furnished(tmp_path, monkeypatch)


def furnished(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.chdir(folder)
    patch.setattr(Interruption, "watch", lambda *_: Interruption())
    save_model(folder / "model", num_hidden_layers=3)
    write_tokens(folder / "tokens.json")
    return folder


def prepared(*overrides: str) -> Run:
    config = configured(*ARGUMENTS, *overrides)
    return Run.prepare(config, check(config))


@dataclass(frozen=True)
class Job:
    """A job of a run that was launched; nothing has started it."""

    run: Run
    submission: Submission

    @classmethod
    def of(cls, run: Run, stages: Sequence[str] = ()) -> "Job":
        """As a launch records it; without ``stages`` it has all of them."""
        run.claim()
        planned = [run.plan.by_name[name] for name in stages] or list(run.plan.stages)
        intent = {
            "cluster": "local", "holder": Process.here().to_json(), "max_requeues": 0,
            "patience_s": 60.0, "after": [], "offline": False,
        }  # fmt: skip
        task = Task(str(run.folder.path.absolute()), {each.name: each.key for each in planned})
        submission = Submission.intend(run.store.root, intent, [task])
        for stage in planned:
            want(run.store.folder(stage), run.folder.path)
            record_attempt(run.store.folder(stage), submission, 0)
        return cls(run, submission)

    def do(self) -> int:
        """Its exit status."""
        return ThisJob(self.submission, executor_named("local"), None).run()

    @property
    def end(self) -> tuple[str, str | None]:
        """Its outcome and its error, as it reported them."""
        report = self.submission.ends(0)[-1]
        return report["outcome"], report["error"]


def after_steps(patch: pytest.MonkeyPatch, count: int, act: Callable[[], object]) -> None:
    """Have something happen once, as soon as a job has computed so many steps."""
    original, seen = JobLog.step, []

    def step(self: JobLog, step: StepRecord, computed: bool) -> None:
        seen.append(step)
        if len(seen) == count:
            act()
        original(self, step, computed)

    patch.setattr(JobLog, "step", step)
