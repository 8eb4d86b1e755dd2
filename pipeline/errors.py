"""Every error that a user is meant to read. Anything else that escapes is a defect."""

from collections.abc import Sequence
from pathlib import Path

MOST_NAMED = 10
"""Of a long list in a message."""


class PipelineError(Exception):
    """Something went wrong that one line explains; ``launch.py`` prints it without a traceback."""

    exit_status = 1


class ConfigError(PipelineError):
    """The user's configuration is wrong. Carries every problem that was found, not the first."""

    exit_status = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StageError(PipelineError):
    """A stage cannot go on. What it finished before is kept."""


class LeaseLostError(PipelineError):
    """Another process took this work over; nothing more may be written from here."""


class ClusterError(PipelineError):
    """What runs the jobs does not do what is asked of it."""


class DamagedError(PipelineError):
    """A file that was written here is not what was written. Nothing of it may be used."""

    def __init__(self, path: Path, reason: str, voided: Path | None = None) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.path, self.reason = path, reason
        self.voided = voided
        """What said that the file is whole, and holds no longer."""
