"""Runs that are proposed, a generation at a time, from what those before them gave.

A module or package of this folder with a value ``KIND`` is a kind of study. It proposes and reads;
``jobs/studying.py`` has the proposed runs done.
"""

from collections.abc import Collection
from functools import cache

from pipeline.errors import ConfigError
from pipeline.models.source import ModelSource
from pipeline.registry import declared
from pipeline.settings.core import Config
from pipeline.studies.base import Alone, Kind, Study


@cache
def kinds() -> list[Kind]:
    """Every kind of this folder."""
    return declared(__name__, "KIND", Kind)


def proposes(config: Config) -> bool:
    """Whether a configuration stands for runs that are proposed, and not for one run."""
    return any(kind.is_wanted(config) for kind in kinds())


def study_of(config: Config, source: ModelSource, typed: Collection[str]) -> Study:
    """What proposes the runs of a configuration; the run itself where nothing else does.

    ``typed`` are the keys that the user gave. Raises ``ConfigError`` where the configuration cannot
    be studied so.
    """
    wanted = [kind for kind in kinds() if kind.is_wanted(config)]
    if len(wanted) > 1:
        raise ConfigError([
            "study.space: ranges are given, and another key has runs proposed as well; "
            "leave one of them out"
        ])  # fmt: skip
    return wanted[0].of(config, source, typed) if wanted else Alone()
