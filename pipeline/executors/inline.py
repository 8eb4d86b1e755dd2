"""cluster=inline: the stages run one after the other in the process that launches them."""

from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn

from pipeline.errors import ClusterError
from pipeline.executors.base import Executor, JobStatus
from pipeline.executors.submission import Attempt, Submission
from pipeline.settings.cluster import ClusterSection, Resources


class InlineSection(ClusterSection):
    """In this process."""

    name: Literal["inline"]
    """Stages run in this process."""


class Inline(Executor[InlineSection, Resources]):
    """Nothing is submitted: whoever launches runs the stages, and interrupts them to end them."""

    name = "inline"
    section = InlineSection
    place = "in this process"
    is_here = True

    def submit(
        self,
        submission: Submission,
        command: str,  # noqa: ARG002
        cluster: InlineSection,  # noqa: ARG002
        resources: Resources,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse: nobody submits what runs here."""
        raise ClusterError(f"{submission.name} runs in its own process: type its command again")

    def statuses(self, attempts: Sequence[Attempt]) -> Mapping[Attempt, JobStatus]:
        """There are no jobs."""
        return {attempt: JobStatus("lost", "it ran in its own process") for attempt in attempts}

    def cancel(self, submission: Submission, index: int) -> NoReturn:  # noqa: ARG002
        """Refuse: the process is interrupted where it runs."""
        raise ClusterError(f"{submission.name} runs in its own process: press Ctrl-C there")


EXECUTOR = Inline()
