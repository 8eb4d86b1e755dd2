"""One file for each command of multipruner, called as it is; being in this folder is being one."""

import pkgutil
from functools import cache

from pipeline.commands.base import Command
from pipeline.registry import declared, declared_in


def find_command(name: str) -> Command | None:
    """The command of that name, or None where there is none. No other's file is imported."""
    if name not in (entry.name for entry in pkgutil.iter_modules(__path__)):
        return None
    return declared_in(f"{__name__}.{name}", "COMMAND", Command)


@cache
def commands() -> tuple[Command, ...]:
    """Every command, in the order of the alphabet."""
    return tuple(declared(__name__, "COMMAND", Command))
