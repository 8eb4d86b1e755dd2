"""The ranks that train together, or one process alone."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from pipeline.distributed.ranks import Group
from pipeline.errors import StageError

T = TypeVar("T")


class TeamError(Exception):
    """What keeps the ranks from going on: all of them know it, and none waits for another."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Team:
    """This process and those that share its batches."""

    def __init__(self, group: Group | None) -> None:
        self.group = group
        self.rank = group.ranks.rank if group else 0
        self.size = group.ranks.size if group else 1

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """What of some rows is this rank's."""
        return rows[self.rank :: self.size]

    def everyones(self, mine: T) -> list[T]:
        """What each rank gives, by rank, on every rank."""
        return self.group.everyones(mine) if self.group else [mine]

    def alike(self, work: Callable[[], T]) -> T:
        """What ``work`` gives here, once it is done on every rank.

        Raises ``TeamError`` on all of them where it raises on one.
        """
        try:
            value = work()
        except Exception as error:
            self.everyones(str(error) or type(error).__name__)
            raise TeamError(error) from error
        for rank, problem in enumerate(self.everyones("")):
            if problem:
                raise TeamError(StageError(f"rank {rank} failed: {problem}"))
        return value

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor its sum over the ranks."""
        if self.group:
            self.group.add_up(tensors)
