"""Runs on a SLURM, watched through the programs that a user types."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support_executors import held_computing, job_processes

import launch
from pipeline.executors.slurm import resources
from pipeline.jobs.status import StageStatus, of_run, run_state

REPOSITORY = Path(__file__).parents[2]
LAUNCH = REPOSITORY / "launch.py"
RESULTS = ("pruning_config.json", "steps.jsonl", "metrics.jsonl")
Json = dict[str, Any]
SMALL = ("cluster=slurm", "cluster.gpus=0", "cluster.cpus=1", "cluster.mem_gb=2")
"""What a job of these tests asks for."""


def run(command: list[str], **settings: Any) -> str:
    """What a command prints; it must succeed."""
    environment = settings.pop("env", os.environ) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        **settings,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@dataclass(frozen=True)
class Cluster:
    """A SLURM, by the folder that it runs in."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "SLURM_CONF": str(self.state / "etc" / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        }

    def run(self, *command: str) -> str:
        return run(list(command), env=self.environment)

    def queue(self) -> list[str]:
        return self.run("squeue", "-h", "-r", "-o", "%i").split()

    def pid_of(self, daemon: str) -> int:
        return int((self.state / "run" / f"{daemon}.pid").read_text())

    def up(self) -> None:
        run([str(REPOSITORY / "tests" / "cluster" / "slurm-up"), str(self.state)])

    def place(self, folder: Path, arguments: list[str], done: "Place") -> Iterator["Place"]:
        shutil.copytree(
            done.folder / "outputs/store/stages/calibrate",
            folder / "outputs/store/stages/calibrate",
        )
        yield Place(folder, arguments, self)
        for job_id in self.queue():
            self.run("scancel", job_id)
        wait_for(lambda: not self.queue())


@dataclass(frozen=True)
class Place:
    """A folder to launch from."""

    folder: Path
    arguments: list[str]
    cluster: Cluster | None = None

    def _arguments(self, more: Sequence[str]) -> list[str]:
        flags = [argument for argument in more if argument.startswith("-")]
        rest = [argument for argument in more if argument not in flags]
        return [*flags, *self.arguments, *SMALL, *rest]

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Launch in a process of its own."""
        assert self.cluster
        return subprocess.Popen(
            [sys.executable, str(LAUNCH), *self._arguments(more)],
            cwd=self.folder,
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def launch(self, *more: str, status: int = 0) -> str:
        """``launch.py`` in this process, which has imported what takes seconds to import."""
        assert self.cluster
        out, errors = io.StringIO(), io.StringIO()
        resources._problems.cache_clear()  # a launch asks the cluster anew
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(out),
            redirect_stderr(errors),
        ):
            patch.setattr(sys, "argv", [str(LAUNCH), *self._arguments(more)])
            patch.chdir(self.folder)
            for name, value in self.cluster.environment.items():
                patch.setenv(name, value)
            assert launch.main() == status, (out.getvalue(), errors.getvalue())
        return out.getvalue() + errors.getvalue()

    def multipruner(self, *arguments: str, status: int = 0) -> str:
        assert self.cluster
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.commands.cli", *arguments], check=False,
            cwd=self.folder, env=self.cluster.environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    @property
    def run(self) -> Path:
        (folder,) = (self.folder / "outputs/runs").iterdir()
        return folder

    @property
    def state(self) -> str:
        return run_state(self._states(self.run))

    @property
    def stages(self) -> dict[str, Json]:
        return {status.stage: status.to_json() for status in self._states(self.run)}

    def _states(self, run: Path) -> list[StageStatus]:
        assert self.cluster
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", self.cluster.environment["SLURM_CONF"])
            return of_run(run)

    def steps(self) -> int:
        """Steps on disk, of all trajectories."""
        return len(list(self.folder.glob("outputs/store/trajectories/*/steps/[0-9]*.json")))

    def results(self) -> dict[str, Any]:
        return {name: (self.run / name).read_bytes() for name in RESULTS}

    def evaluation(self) -> Json:
        evaluation: Json = json.loads((self.run / "evaluation.json").read_text())
        for which in ("dense", "pruned"):
            del evaluation[which]["seconds"]
        return evaluation

    def job(self, stage: str) -> str:
        return str(self.stages[stage]["job_id"])

    def finish(self) -> None:
        """Wait until nothing runs any more; the run must be done."""
        going_on = ("pending", "running", "requeued", "unknown")
        # each look starts squeue and sacct, which take from the jobs what they wait for
        wait_for(lambda: self.state not in going_on, 120, poll_s=1.0)
        assert self.state == "done", (self.stages, self.multipruner("logs", str(self.run)))

    def processes(self) -> list[int]:
        """The processes that run this place's stages."""
        return job_processes(self.folder)

    @contextmanager
    def held(self) -> Iterator[list[int]]:
        """A job that computes steps and comes to no end meanwhile; its processes."""
        with held_computing(self.steps, self.processes) as pids:
            yield pids


def wait_for(condition: Callable[[], object], seconds: float = 90, poll_s: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(poll_s)


def assert_same_steps(place: Place, other: Place) -> None:
    """What several processes decide: the last bits of the losses may differ."""
    lines, others = (
        [json.loads(line) for line in (p.run / "steps.jsonl").read_text().splitlines()]
        for p in (place, other)
    )
    for one, two in zip(lines, others, strict=True):
        for key in ("unit", "layer", "width_after"):
            assert one[key] == two[key]
        assert one["importance"] == pytest.approx(two["importance"], rel=1e-6)
