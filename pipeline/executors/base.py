"""What an executor is: the one interface to whatever runs stages.

An executor is a module or package of this folder with a value ``EXECUTOR``. It owns its keys in the
configuration's section ``cluster``, and it alone knows the words of its scheduler. From the way of
a launch to its end it is asked:

- ``problems``, ``warnings``: what it would refuse, before anything is written;
- ``device``: what ``model.device=auto`` will be where its stages run;
- ``completed``, ``groups``: what jobs ask for in full, and which stages are submitted together;
- ``submit``: have a command run for each job of a submission;
- ``statuses``: how jobs stand, all in one question;
- ``cancel``, ``log``: end a job, find what it printed;
- ``current_job``, ``ranks``, ``is_ending``, ``requeue``: inside a job, which one it is, whether
  it is one of several processes, and how it goes on later.

Everything else (what is missing, records, dependencies between stages, retries) is in ``jobs``, the
same for every executor. Imports nothing heavy: a configuration is checked with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from pipeline.distributed.rendezvous import Ranks
from pipeline.executors.submission import Attempt, Submission
from pipeline.settings.cluster import ClusterSection, Resources
from pipeline.store.processes import CurrentJob

if TYPE_CHECKING:
    from pipeline.settings.core import Config

DAY_MIN = 24 * 60
WARN_S = 120
"""Seconds between the signal that asks a job to stop and its end, where nothing else is known."""


@dataclass(frozen=True)
class WorkItem:
    """A stage that is to be computed for a run."""

    run: str
    """The run's folder."""
    stage: str
    key: str
    needs: tuple[str, ...]
    """Keys of the stages that it needs and that are not finished."""
    resources: Resources


Job = tuple[WorkItem, ...]
"""Stages of a run that one job computes, one after the other."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What an executor knows of a job."""

    state: Literal["waiting", "running", "ended", "cancelled", "lost", "unreachable"]
    """lost: there is no such job; unreachable: the scheduler does not answer."""
    reason: str | None = None
    """Why it waits; or how it ended, for where the job itself left no word."""
    word: str | None = None
    """The scheduler's own word for its state."""
    node: str | None = None
    """Where it runs or ran."""


C = TypeVar("C", bound=ClusterSection)
R = TypeVar("R", bound=Resources)


class Executor(ABC, Generic[C, R]):
    """Runs stages: in this process, in others, or through a scheduler."""

    name: ClassVar[str]
    """What ``cluster.name`` chooses it by."""
    section: ClassVar[type[ClusterSection]]
    """Its keys in the configuration; ``name`` is a ``Literal`` there."""
    place: ClassVar[str]
    """Where its stages run, as it stands in "cluster.KEY means nothing PLACE"."""
    is_here: ClassVar[bool] = False
    """Whether stages run in the process that launches them. Nothing is submitted then."""
    keeps_order: ClassVar[bool] = True
    """Whether a job starts only after those that it waits for. Else a job has all stages of a run,
    and waits for what others compute itself."""

    def problems(self, config: "Config") -> list[str]:
        """What it would refuse, or leave waiting for ever: KEY: what is wrong; what is allowed."""
        if config.model.device == "cuda" and not has_cuda():
            return ["model.device: cuda is asked for and there is no CUDA device; use auto or cpu"]
        return []

    def warnings(self, store: Path) -> list[str]:  # noqa: ARG002
        """What a person should know before jobs use the folder of results."""
        return []

    def device(self, cluster: C) -> str:  # noqa: ARG002
        """What ``model.device=auto`` is where the stages run: cuda or cpu."""
        from pipeline.models.loading import resolve_device

        return resolve_device("auto")

    def completed(self, resources: Sequence[R]) -> list[R]:
        """What jobs ask for, with what the configuration leaves open.

        Raises ``ClusterError`` where that cannot be found out.
        """
        return list(resources)

    def groups(self, items: Sequence[WorkItem]) -> list[list[Job]]:
        """The jobs of each submission, those that others need first.

        The jobs of a submission have equal resources, and none needs another.
        """
        return [[(item,)] for item in in_order(items)]

    def warning_s(self, cluster: C, resources: R) -> float:  # noqa: ARG002
        """Seconds between the signal that asks a job to stop and its end."""
        return WARN_S

    @abstractmethod
    def submit(self, submission: Submission, command: str, cluster: C, resources: R) -> None:
        """Have a shell command run, once for each job, and record the submission's id.

        ``submission.after`` are ids that have to end well before. A command's environment is this
        process's own. Raises ``ClusterError``.
        """

    @abstractmethod
    def statuses(self, attempts: Sequence[Attempt]) -> Mapping[Attempt, JobStatus]:
        """How jobs of this executor stand; the scheduler is asked once."""

    @abstractmethod
    def cancel(self, submission: Submission, index: int) -> bool:
        """End a job, pending or running; whether it could be reached from here.

        Whatever becomes of this, a job that was to be cancelled ends by itself: at its start, or
        between two steps. Raises ``ClusterError`` where the scheduler does not answer.
        """

    def log(self, submission: Submission, index: int) -> Path | None:
        """The file with what a job prints; None before there is one."""
        path = submission.folder / f"{submission.job_id_of(index)}_0_log.out"
        return path if path.exists() else None

    def current_job(self, environment: Mapping[str, str]) -> CurrentJob | None:  # noqa: ARG002
        """The job that a process with this environment is part of; None where it is of none."""
        return None

    def ranks(self, environment: Mapping[str, str]) -> Ranks | None:  # noqa: ARG002
        """The process's place among those of its job; None where it is alone."""
        return None

    def is_ending(self, job: CurrentJob) -> bool:  # noqa: ARG002
        """Whether the scheduler ends or requeues this running job already."""
        return False

    def requeue(self, job: CurrentJob) -> bool:  # noqa: ARG002
        """Have this running job start again later; whether that worked. May not return if so."""
        return False


def has_cuda() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return torch.cuda.is_available()


def in_order(items: Sequence[WorkItem]) -> list[WorkItem]:
    """Those that others need first."""
    depths = depths_of(items)
    return sorted(items, key=lambda item: depths[item.key])


def depths_of(items: Sequence[WorkItem]) -> dict[str, int]:
    """By key, how many of the items come one after the other up to each. They are in an order."""
    depths: dict[str, int] = {}
    for item in items:
        depths[item.key] = 1 + max((depths.get(key, 0) for key in item.needs), default=0)
    return depths


def warning_within(warn_s: int, timeout_min: int | None) -> int:
    """Seconds of warning: less where the time limit itself is short."""
    return min(warn_s, (timeout_min or DAY_MIN) * 60 // 4)
