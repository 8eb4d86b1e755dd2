"""Which process this is, and the job of a scheduler that it is part of.

Both are told by values that another process can judge: whether the process still lives, whether it
is an earlier start of the same job.
"""

import json
import os
import platform
import signal
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

JOB_VARIABLE = "MULTIPRUNER_JOB"
"""Has the job that a process is part of, for the process itself and those that it starts."""


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job of a scheduler that a process is part of, in words that every scheduler has."""

    scheduler: str = ""
    """Name of the executor that knows the scheduler."""
    id: str = ""
    """What the scheduler calls the job; empty where it is none that could be requeued."""
    submission_id: str = ""
    """What the scheduler calls what was submitted: the array that the job is of, or the job."""
    index: int = 0
    """Its place in what was submitted."""
    restart: int = 0
    """How often it was requeued."""
    identity: str = ""
    """What no other job of the scheduler ever has: an id alone may be given again."""
    node: str | None = None
    """The machine, as the scheduler calls it."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What the scheduler told of the job, noted with results."""


NO_JOB = CurrentJob()


def announce(job: CurrentJob | None, environment: MutableMapping[str, str]) -> None:
    """Have this process, and those that it starts, be part of ``job``; None is of none."""
    if job is None:
        environment.pop(JOB_VARIABLE, None)
    else:
        environment[JOB_VARIABLE] = json.dumps(asdict(job))


def current_job() -> CurrentJob:
    """The job that was announced; ``NO_JOB`` without one."""
    text = os.environ.get(JOB_VARIABLE)
    return CurrentJob(**json.loads(text)) if text else NO_JOB


@dataclass(frozen=True, slots=True)
class Process:
    """A process, named so that another one on the same machine can tell whether it still lives."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: str
    """Start of the process in clock ticks since boot: a process id alone is given again."""
    job: str = ""
    """Identity of the scheduler's job that the process is of; empty where it is of none."""
    restart: int = 0
    """How often that job had been requeued."""

    @classmethod
    def here(cls) -> "Process":
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "Process":
        """A process of this machine."""
        job, started = current_job(), _started(pid) or ""
        place = platform.node(), _boot_id(), _pid_namespace()
        return cls(*place, pid, started, job.identity, job.restart)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @property
    def is_superseded(self) -> bool:
        """Whether the present process is a later start of the same job."""
        job = current_job()
        return job.identity != "" and (self.job == job.identity and self.restart < job.restart)

    @property
    def is_dead(self) -> bool | None:
        """Whether the process is gone; None where that cannot be told from here."""
        here = (platform.node(), _boot_id(), _pid_namespace())
        if (self.host, self.boot_id, self.pid_namespace) != here:
            return None
        return _started(self.pid) != self.started

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to the process; whether it could be reached.

        One of which cannot be told from here that it lives gets none: its id may be another's.
        """
        if self.is_dead is not False:
            return False
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _started(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
