"""One writer per folder, on one machine or on a file system that several share.

A lease is a numbered file, and the highest number holds. Taking over is publishing the next number,
which only one process can. Nothing is ever deleted, so a number is never given twice, and whoever
was slow to take over finds it taken. A holder beats by touching its file, and checks before every
publication that no higher number is there.

A job that was requeued takes over at once from its earlier start, even where that one's processes
still live on a node that the scheduler has lost.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import DamagedError, LeaseLostError
from pipeline.files import encode, publish, read_object, understood
from pipeline.pruning.trajectory import Guard
from pipeline.store.processes import Process

BEAT_S = 5.0
DEAD_AFTER_S = 60.0
"""A holder on another machine that has not beaten for this long counts as dead."""
POLL_S = 0.2
"""How often is looked whether a lease that another process holds is free."""


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
    mine, holder = leases / f"{number:06d}.json", Process.here()
    if not publish(mine, encode(holder.to_json())):
        yield None
        return

    def is_mine() -> bool:
        return _read_holder(mine) == holder  # after a deletion others begin at 0 again

    def guard() -> None:
        if _latest(leases) != number or not is_mine():
            raise LeaseLostError(
                f"another process has taken over {folder}, or it was deleted; this one stops "
                "without writing"
            )

    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(mine, stop), daemon=True)
    heart.start()
    try:
        yield guard
    finally:
        stop.set()
        heart.join()
        if is_mine():
            with suppress(FileNotFoundError):
                mine.with_suffix(".released").touch()


@contextmanager
def awaited_lease(
    folder: Path,
    on_wait: Callable[[str], None],
    gives_up: Callable[[], bool] = lambda: False,
) -> Iterator[Guard | None]:
    """Become the only writer of ``folder``, after waiting for whoever is.

    ``on_wait`` is told every ``POLL_S`` seconds who that is, and ends the waiting by raising. Gives
    what ``lease`` gives; None only where another process still holds it when ``gives_up`` says so.
    """
    while True:
        with lease(folder) as guard:
            if guard is not None or gives_up():
                yield guard
                return
        on_wait(holder_of(folder) or "another process")
        time.sleep(POLL_S)


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


def last_holder(folder: Path) -> Process | None:
    """Who took the lease last, whether or not it still holds it; None before anybody did."""
    latest = _latest(folder / "leases")
    return None if latest is None else _read_holder(folder / "leases" / f"{latest:06d}.json")


def last_beat(folder: Path) -> float | None:
    """When whoever took the lease last was seen alive, as a file's time; None: nobody took it."""
    latest = _latest(folder / "leases")
    if latest is None:
        return None
    with suppress(FileNotFoundError):
        return (folder / "leases" / f"{latest:06d}.json").stat().st_mtime
    return None


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
    """Seconds since the last beat."""
    try:
        return _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return DEAD_AFTER_S


def _now(folder: Path) -> float:
    """The time by the file system's own clock, which all machines see; else by this one's."""
    probe = folder / f".clock.{platform.node()}.{os.getpid()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # whoever only looks may not be allowed to write
        return time.time()
    return now


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        try:
            os.utime(path)
        except OSError:
            continue  # taken over and cleaned up, or the disk is away: the guard will tell


def _latest(leases: Path) -> int | None:
    stems = (path.stem for path in leases.glob("*.json"))
    return max((int(stem) for stem in stems if stem.isdecimal()), default=None)


def _read_holder(path: Path) -> Process | None:
    try:
        content = read_object(path)
        return understood(path, lambda: Process(**content)) if content else None
    except DamagedError:
        return None
