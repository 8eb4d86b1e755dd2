"""The start of a process that may be one of several that share the candidates.

Imports no torch: a wrong configuration of one process is to be told at once.
"""

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pipeline.distributed.rendezvous import Ranks

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader

T = TypeVar("T")


def over_ranks(work: "Callable[[Leader | None], T]", ranks: Ranks | None) -> T:
    """Do ``work`` with the ranks that this process was started among, or alone with None.

    Rank 0 alone does ``work``, and divides the candidates over the others. Every other rank scores
    what rank 0 asks for, and this call ends its process. Raises ``StageError`` where the ranks do
    not meet.
    """
    if ranks is None:
        return work(None)

    if ranks.rank > 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # rank 0 says when it is over

    from pipeline.distributed.ranks import leading, serve

    if ranks.rank > 0:
        serve(ranks)
    with leading(ranks) as leader:
        return work(leader)
