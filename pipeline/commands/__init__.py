"""One file for each command of multipruner; being in this folder is being one."""

from functools import cache

from pipeline.commands.base import Command
from pipeline.registry import declared


@cache
def commands() -> tuple[Command, ...]:
    """Every command, in the order of the alphabet."""
    return tuple(declared(__name__, "COMMAND", Command))
