"""What every executor is tested with: the same launches, watched through the interface."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from support_inputs import (
    REPOSITORY,
    configured,
    problems_of,
    save_model,
    save_tokenizer,
    write_tokens,
)
from support_warm import WARM

from pipeline.executors import executor_named
from pipeline.jobs import launching
from pipeline.jobs.cancelling import cancel
from pipeline.jobs.status import LIVE, StageStatus, of_run, run_state
from pipeline.jobs.submit import survey
from pipeline.plan.preflight import check
from pipeline.plan.run import Run, launched_from
from pipeline.screen import screen

PATIENCE_S = 180
CLIENT = bytes(WARM / "client.py")
TEXT = "It was a dark and stormy night. " * 20


HELD_AFTER = 3
"""Steps after which a job is held."""


def wait_for(
    condition: Callable[[], object], seconds: float = PATIENCE_S, poll_s: float = 0.2
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(poll_s)


def job_processes(folder: Path) -> list[int]:
    """The processes that run jobs of what was launched from a folder."""
    mark = f"pipeline.jobs.job\0{folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if (
            mark in command
            and CLIENT not in command
            and command.split(b"\0")[0].endswith(b"python")
        ):
            found.append(int(path.parent.name))
    return found


def told_by_cancel(run: Path) -> list[str]:
    told: list[str] = []
    cancel(run, told.append)
    return told


@contextmanager
def held(pids: list[int]) -> Iterator[list[int]]:
    """Processes that do nothing meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # whoever ends it may have woken it
                os.kill(pid, signal.SIGCONT)


@contextmanager
def held_computing(
    steps: Callable[[], int], processes: Callable[[], list[int]]
) -> Iterator[list[int]]:
    """The processes of a job, held once there are a few steps.

    They go on a moment at a time until then: the job may not end while nobody looks.
    """
    wait_for(lambda: steps() and processes(), poll_s=0.02)
    with held(processes()) as pids:
        end = time.monotonic() + PATIENCE_S
        while steps() <= HELD_AFTER:
            assert time.monotonic() < end, "it computes no steps"
            with going_on(pids):
                time.sleep(0.02)
        yield pids


@contextmanager
def going_on(pids: list[int]) -> Iterator[None]:
    """Held processes go on meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def has_been_signalled(pid: int, number: signal.Signals = signal.SIGTERM) -> bool:
    """Whether a stopped process has a signal waiting for it, or was woken to take it in."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    is_waiting = int(fields["ShdPnd"], 16) >> (number - 1) & 1
    return bool(is_waiting) or not fields["State"].startswith("T")


def write_inputs(folder: Path) -> list[str]:
    """Arguments for a model whose pruning takes dozens of steps.

    They are short: a job that something happens to is held, so that it has not ended before.
    """
    model = save_tokenizer(
        save_model(folder / "tiny", num_hidden_layers=10, hidden_size=32, intermediate_size=48)
    )
    windows = [[(7 * i + 3 * j) % 100 for j in range(64)] for i in range(16)]
    return [
        "model=hf",
        "run.pictures=[]",
        f"model.path={model}",
        "calibration=tokens",
        f"calibration.path={write_tokens(folder / 'tokens.json', windows, windows)}",
        "prune.target_ratio=40",
        "prune.distribution=[20,60,20]",
        "prune.mlp_group_size=8",
        "prune.attn_group_size=16",
        "tracking=local",
        "score.enabled=false",
    ]


@dataclass(frozen=True)
class Launch:
    """A run, as it stands."""

    path: Path

    @property
    def stages(self) -> dict[str, StageStatus]:
        return {status.stage: status for status in of_run(self.path)}

    @property
    def state(self) -> str:
        return run_state(of_run(self.path))

    def results(self) -> tuple[bytes, bytes]:
        names = ("pruning_config.json", "steps.jsonl")
        steps, config = ((self.path / name).read_bytes() for name in names)
        return steps, config

    def finish(self) -> None:
        """Wait until nothing runs any more; the run must be done."""
        wait_for(lambda: self.state not in (*LIVE, "unknown"))
        assert self.state == "done", self.stages


@dataclass(frozen=True)
class Bench:
    """A folder to launch from, with an executor. Calibration is done there."""

    folder: Path
    arguments: tuple[str, ...]
    undisturbed: Launch
    """The same run in one process, that nothing happened to."""

    def prepared(self, *overrides: str) -> Run:
        config = configured(*self.arguments, *overrides)
        return Run.prepare(config, check(config))

    def launch(self, *overrides: str) -> Launch:
        """As ``launch.py`` does it, in this process."""
        run = self.prepared(*overrides)
        launching.carry_out([run], screen())
        return Launch(run.folder.path.absolute())

    def retry(self, run: Launch) -> None:
        with launched_from(run.path):
            launching.launch([Run.open(run.path)], screen())

    def steps(self) -> int:
        """Steps on disk, of all trajectories."""
        return len(list(self.folder.glob("outputs/store/trajectories/*/steps/[0-9]*.json")))

    def submissions(self) -> int:
        return len(list(self.folder.glob("outputs/store/submissions/*/submission.json")))

    def processes(self) -> list[int]:
        """The processes that run jobs of this folder."""
        return job_processes(self.folder)

    @property
    def text(self) -> Path:
        """Text to evaluate on."""
        path = self.folder / "text.txt"
        path.write_text(TEXT, encoding="utf-8")
        return path

    @contextmanager
    def held(self) -> Iterator[int]:
        """A job that computes steps and comes to no end meanwhile; its process id."""
        with held_computing(self.steps, self.processes) as (pid,):
            yield pid


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def undisturbed(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """The run in this process, that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = configured(*inputs)
        run = Run.prepare(config, check(config))
        launching.carry_out([run], screen())
    return Launch(folder / run.folder.path)


class ExecutorSuite:
    """What holds for every executor. A subclass in a file of tests names one."""

    executor: ClassVar[str]
    chosen_by: ClassVar[tuple[str, ...]]
    """Overrides that choose it, and with which its jobs run on this machine."""

    @pytest.fixture
    def bench(
        self,
        inputs: list[str],
        undisturbed: Launch,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        warm: None,
    ) -> Iterator[Bench]:
        calibrate = "outputs/store/stages/calibrate"
        shutil.copytree(undisturbed.path.parents[2] / calibrate, tmp_path / calibrate)
        monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{Path(__file__).parent / 'executors'}")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.chdir(tmp_path)
        bench = Bench(tmp_path, (*inputs, *self.chosen_by), undisturbed)
        yield bench
        for pid in bench.processes():
            os.kill(pid, signal.SIGKILL)

    def test_a_run_gives_what_this_process_gives(self, bench: Bench) -> None:
        run = bench.launch()
        self.look_on(bench, run)
        run.finish()
        assert run.results() == bench.undisturbed.results()
        steps, submissions = bench.steps(), bench.submissions()
        bench.launch().finish()
        assert (bench.steps(), bench.submissions()) == (steps, submissions)

    def look_on(self, bench: Bench, run: Launch) -> None:
        """While the run goes on, where it does so elsewhere."""

    def test_what_it_would_refuse_is_known_before(self, bench: Bench) -> None:
        executor = executor_named(self.executor)
        config = configured(*bench.arguments)
        assert executor.problems(config) == []
        assert executor.device(config.cluster) in ("cpu", "cuda")
        assert isinstance(config.cluster, executor.section)
        told = problems_of(lambda: configured(*bench.arguments, "+cluster.no_such_key=1"))
        assert told == ["cluster.no_such_key: no such key"]


class JobSuite(ExecutorSuite):
    """What holds for every executor that runs jobs in other processes."""

    goes_on: ClassVar[bool] = True
    """Whether a job that is asked to stop is requeued."""

    def look_on(self, bench: Bench, run: Launch) -> None:
        """What is under way is not submitted again, and serves whoever wants it."""
        with bench.held():
            wait_for(lambda: run.state == "running")
            twin = bench.launch("run.name=twin")
            (prune,) = (
                work
                for work in survey([bench.prepared("run.name=twin")])
                if work.stage.name == "prune"
            )
            assert (prune.is_shared, prune.needs_job) == (True, False)
            assert (prune.status.state, bench.submissions()) == ("running", 1)
        # the job concludes the run that waited for it, too
        wait_for((twin.path / "report.html").exists)
        assert twin.results() == bench.undisturbed.results()
        log = run.stages["prune"].log
        assert log is not None
        assert "prune new" in Path(log).read_text()

    def test_a_cancelled_run_ends_and_goes_on_when_it_is_launched_again(self, bench: Bench) -> None:
        evaluated = (f"evaluate.text={bench.text}", "evaluate.seqlen=32")
        run = bench.launch(*evaluated)
        with bench.held() as pid:
            told = told_by_cancel(run.path)
            assert told
            assert all(line.endswith("cancelled") for line in told)
            wait_for(lambda: has_been_signalled(pid))
        wait_for(lambda: not bench.processes())
        wait_for(lambda: run.state == "cancelled")
        states = {name: status.state for name, status in run.stages.items()}
        assert states == {"calibrate": "done", "prune": "cancelled", "evaluate": "cancelled"}
        assert run.stages["prune"].reason == "by multipruner cancel"
        assert told_by_cancel(run.path) == ["nothing of this run alone is pending or running"]
        steps = bench.steps()
        assert bench.launch(*evaluated) == run
        run.finish()
        assert run.results() == bench.undisturbed.results()
        assert steps > 3

    def test_a_failing_stage_says_its_own_error_and_ends_what_needs_it(self, bench: Bench) -> None:
        run = bench.launch(
            "prune.distribution=[0,0,100]", f"evaluate.text={bench.text}", "evaluate.seqlen=32"
        )
        wait_for(lambda: run.state == "failed")
        wait_for(lambda: run.stages["evaluate"].state in ("cancelled", "failed"))
        stages = run.stages
        assert "prune.target_ratio=40 cannot be reached" in (stages["prune"].reason or "")
        if executor_named(self.executor).keeps_order:
            assert stages["evaluate"].state == "cancelled"
            assert stages["evaluate"].reason == "prune, which it needs, failed"

    def test_whatever_ends_a_job_its_steps_are_kept(self, bench: Bench) -> None:
        run = bench.launch()
        with bench.held() as pid:
            os.kill(pid, signal.SIGUSR2)
        if self.goes_on:
            wait_for(lambda: run.stages["prune"].restarts == 1)
        else:
            wait_for(lambda: run.state == "failed")
            assert "launch again" in (run.stages["prune"].reason or "")
            bench.retry(run)
        job, steps = run.stages["prune"].job_id, bench.steps()
        with bench.held() as pid:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: run.state == "failed")
        bench.retry(run)
        run.finish()
        assert run.results() == bench.undisturbed.results()
        assert (run.stages["prune"].job_id != job, steps > 3) == (True, True)
