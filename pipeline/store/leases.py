"""One writer per folder, on one machine or on a file system that several share.

A lease is a numbered file, and the highest number holds. Taking over is publishing the next number,
which only one process can. Nothing is ever deleted, so a number is never given twice, and whoever
was slow to take over finds it taken. A holder beats by touching its file, and checks before every
publication that no higher number is there.

A SLURM job that was requeued takes over at once from its earlier start, even where that one's
processes still live on a node that SLURM has lost.
"""

import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import LeaseLostError
from pipeline.files import encode, publish, read_json
from pipeline.pruning.trajectory import Guard

BEAT_S = 5.0
DEAD_AFTER_S = 60.0
"""A holder on another machine that has not beaten for this long counts as dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, named so that another one on the same machine can tell whether it still lives."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: str
    """Start of the process in clock ticks since boot: a process id alone is given again."""
    job: str = ""
    """The SLURM job that the process is of; empty where it is of none."""
    restart: int = 0
    """How often that job had been requeued."""

    @classmethod
    def here(cls) -> "Holder":
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "Holder":
        """A process of this machine."""
        job, restart = _job()
        started = _started(pid) or ""
        return cls(platform.node(), _boot_id(), _pid_namespace(), pid, started, job, restart)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: getattr(self, name) for name in Holder.__slots__}

    @property
    def is_superseded(self) -> bool:
        """Whether this process is a later start of the same job."""
        job, restart = _job()
        return job != "" and (self.job == job and self.restart < restart)

    @property
    def is_dead(self) -> bool | None:
        """Whether the process is gone; None where that cannot be told from here."""
        here = (platform.node(), _boot_id(), _pid_namespace())
        if (self.host, self.boot_id, self.pid_namespace) != here:
            return None
        return _started(self.pid) != self.started


@contextmanager
def lease(folder: Path) -> Iterator[Guard | None]:
    """Try to become the only writer of ``folder``.

    Gives a function that raises ``LeaseLostError`` when another process has taken over, or None
    where a living process holds the lease.
    """
    leases = folder / "leases"
    latest = _latest(leases)
    if latest is not None and _is_held(leases / f"{latest:06d}.json"):
        yield None
        return
    number = 0 if latest is None else latest + 1
    mine = leases / f"{number:06d}.json"
    if not publish(mine, encode(Holder.here().to_json())):
        yield None
        return

    def guard() -> None:
        if _latest(leases) != number:
            raise LeaseLostError(
                f"another process has taken over {folder}; this one stops without writing"
            )

    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(mine, stop), daemon=True)
    heart.start()
    try:
        yield guard
    finally:
        stop.set()
        heart.join()
        mine.with_suffix(".released").touch()


def holder_of(folder: Path) -> str | None:
    """Who holds the lease, for messages; None where nobody does."""
    leases = folder / "leases"
    latest = _latest(leases)
    if latest is None or not _is_held(leases / f"{latest:06d}.json"):
        return None
    holder = _read_holder(leases / f"{latest:06d}.json")
    return f"process {holder.pid} on {holder.host}" if holder else None


def beats(folder: Path) -> bool:
    """Whether somebody holds the lease and seems alive."""
    return holder_of(folder) is not None


def _is_held(path: Path) -> bool:
    if path.with_suffix(".released").exists():
        return False
    holder = _read_holder(path)
    if holder is None or holder.is_superseded:
        return False
    dead = holder.is_dead
    if dead is None:
        return _age_s(path) < DEAD_AFTER_S
    return not dead


def _age_s(path: Path) -> float:
    """Seconds since the last beat by the file system's own clock, which both machines see."""
    probe = path.parent / f".clock.{platform.node()}.{os.getpid()}"
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return DEAD_AFTER_S
    finally:
        probe.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        try:
            os.utime(path)
        except OSError:
            continue  # taken over and cleaned up, or the disk is away: the guard will tell


def _latest(leases: Path) -> int | None:
    return max((int(path.stem) for path in leases.glob("*.json")), default=None)


def _read_holder(path: Path) -> Holder | None:
    try:
        return Holder(**read_json(path))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _job() -> tuple[str, int]:
    """The SLURM job of this process and how often it was requeued. A job's id alone comes again."""
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_NAME")
    job = " ".join(os.environ.get(name, "") for name in names).strip()
    return job, int(os.environ.get("SLURM_RESTART_COUNT", "0"))


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
