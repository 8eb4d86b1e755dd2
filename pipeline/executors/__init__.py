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
def executors() -> dict[str, AnyExecutor]:
    """Every executor by its name."""
    known = declared(__name__, "EXECUTOR", Executor)  # type: ignore[type-abstract]
    return {executor.name: executor for executor in known}


def register(executor: AnyExecutor) -> None:
    """Add an executor that is not in this folder, for as long as the process lives."""
    executors()[executor.name] = executor


def executor_named(name: str) -> AnyExecutor:
    """An executor. Raises ``PipelineError`` where there is none of that name."""
    if name not in executors():
        raise PipelineError(f"there is no executor {name} here; there are {', '.join(executors())}")
    return executors()[name]


def current_job(environment: Mapping[str, str]) -> CurrentJob | None:
    """The job of whichever scheduler a process with this environment is part of."""
    jobs = (executor.current_job(environment) for executor in executors().values())
    return next((job for job in jobs if job is not None), None)


def announce_job(environment: MutableMapping[str, str]) -> None:
    """Let leases and results know the job that this program is part of. Called at its start."""
    processes.announce(current_job(environment), environment)


def ranks(environment: Mapping[str, str]) -> Ranks | None:
    """A process's place among those that torchrun or a scheduler started together, if any."""
    places = (executor.ranks(environment) for executor in executors().values())
    started = (ranks_of_torchrun(environment), *places)
    return next((place for place in started if place is not None), None)
