"""Signals by which a cluster asks a job to stop, and the stop itself, between two steps.

The signals are blocked and a thread takes them in. A process inherits what its parent blocks: so no
helper process of a stage dies of a signal that reaches all processes of a job.
"""

import signal
import threading
from collections.abc import Callable

from pipeline.errors import PipelineError

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Interrupted(PipelineError):  # noqa: N818 - no error: the work goes on in the next process
    """The cluster wants the job to stop. Everything finished is on disk."""


class Interruption:
    """Whether this process has been asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @classmethod
    def watch(cls, patience_s: float, out_of_patience: Callable[[], None]) -> "Interruption":
        """Take in the signals from now on. To be called before any thread is started.

        ``out_of_patience`` is called in a thread where the process still runs ``patience_s`` after
        the first of them.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        interruption = cls()

        def listen() -> None:
            interruption.signal = signal.Signals(signal.sigwait(STOP_SIGNALS))
            late = threading.Timer(patience_s, out_of_patience)
            late.daemon = True
            late.start()
            while True:
                signal.sigwait(STOP_SIGNALS)

        threading.Thread(target=listen, name="signals", daemon=True).start()
        return interruption

    def check(self) -> None:
        """Raise ``Interrupted`` after a signal."""
        if self.signal is not None:
            raise Interrupted(f"stopped between two steps by {self.signal.name}")
