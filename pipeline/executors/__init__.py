"""Where stages run: one interface; in this process, in others, or through a scheduler.

A module or package of this folder with a value ``EXECUTOR`` is an executor; ``register`` adds one
from elsewhere. Nobody else compares executors' names.
"""

from collections.abc import Mapping, MutableMapping
from functools import cache
from typing import Any

from pipeline.distributed.rendezvous import Ranks, ranks_of_torchrun
from pipeline.errors import PipelineError
from pipeline.executors.base import Executor
from pipeline.registry import declared
from pipeline.store import processes
from pipeline.store.processes import CurrentJob

AnyExecutor = Executor[Any, Any]


@cache
def _known() -> dict[str, AnyExecutor]:
    """Executors by their names: those of this folder, and what was registered."""
    known = declared(__name__, "EXECUTOR", Executor)  # type: ignore[type-abstract]
    return {executor.name: executor for executor in known}


def executors() -> tuple[AnyExecutor, ...]:
    """Every executor."""
    return tuple(_known().values())


def register(executor: AnyExecutor) -> None:
    """Add an executor that is not in this folder, for as long as the process lives."""
    _known()[executor.name] = executor


def find_executor(name: str) -> AnyExecutor | None:
    """The executor of that name, or None where there is none."""
    return _known().get(name)


def executor_named(name: str) -> AnyExecutor:
    """The executor of that name. Raises ``PipelineError`` where there is none."""
    executor = find_executor(name)
    if executor is None:
        raise PipelineError(f"there is no executor {name} here; there are {', '.join(_known())}")
    return executor


def current_job(environment: Mapping[str, str]) -> CurrentJob | None:
    """The job of whichever scheduler a process with this environment is part of."""
    jobs = (executor.current_job(environment) for executor in executors())
    return next((job for job in jobs if job is not None), None)


def announce_job(environment: MutableMapping[str, str]) -> None:
    """Let leases and results know the job that this program is part of. Called at its start."""
    processes.announce(current_job(environment), environment)


def ranks(environment: Mapping[str, str]) -> Ranks | None:
    """A process's place among those that torchrun or a scheduler started together, if any."""
    places = (executor.ranks(environment) for executor in executors())
    started = (ranks_of_torchrun(environment), *places)
    return next((place for place in started if place is not None), None)
