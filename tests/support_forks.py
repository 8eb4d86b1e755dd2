"""Processes that are waited for, or killed."""

import os
import select
import signal
import time

KILLED = -signal.SIGKILL
"""The status of a process that was killed."""


def wait(pid: int, kill_after_s: float | None = None) -> tuple[int, float]:
    """A process's exit status, ``KILLED`` where its time was over, and the seconds that it had."""
    started = time.monotonic()
    descriptor = os.pidfd_open(pid)
    ended, _, _ = select.select([descriptor], [], [], kill_after_s)
    os.close(descriptor)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), time.monotonic() - started
