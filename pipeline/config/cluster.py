"""The section ``cluster``: the keys of the executor that is chosen, and no others."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.executors import AnyExecutor, executors
from pipeline.executors.base import ClusterSection
from pipeline.files import Json

NONE_CHOSEN = ClusterSection(name="")
"""Stands for a section that cannot be read, so that problems elsewhere come to light, too."""


def sections() -> Iterator[type[ClusterSection]]:
    """The section of every executor; the one with most keys first."""
    found = [executor.section for executor in executors().values()]
    yield from sorted(found, key=lambda section: len(section.model_fields), reverse=True)


def cluster_section(given: Json, message: Callable[[Any], str]) -> tuple[ClusterSection, list[str]]:
    """The section as the chosen executor understands it, and everything that is wrong with it.

    ``message`` puts one of pydantic's errors into words.
    """
    if not isinstance(given, Mapping) or "name" not in given:
        missing = {"type": "missing", "loc": ("cluster", "name"), "input": given}
        return NONE_CHOSEN, [message(missing)]
    executor = executors().get(str(given["name"]))
    if executor is None:
        expected = " or ".join(map(repr, executors()))
        return NONE_CHOSEN, [message({
            "type": "literal_error",
            "loc": ("cluster", "name"),
            "input": given["name"],
            "ctx": {"expected": expected},
        })]  # fmt: skip
    meaningless = _meaningless(given, executor.section)
    problems = [_of_others(meaningless, executor)] if meaningless else []
    own = {key: value for key, value in given.items() if key not in meaningless}
    try:
        return executor.section.model_validate(own), problems
    except ValidationError as error:
        details = [{**detail, "loc": ("cluster", *detail["loc"])} for detail in error.errors()]
        return NONE_CHOSEN, [*problems, *map(message, details)]


def _meaningless(given: Mapping[str, Json], section: type[ClusterSection]) -> list[str]:
    """Keys that some other executor understands."""
    known = {key for other in sections() for key in other.model_fields}
    return sorted(key for key in given if key in known and key not in section.model_fields)


def _of_others(keys: list[str], executor: AnyExecutor) -> str:
    able = [
        f"cluster={other.name}"
        for section in sections()
        for other in executors().values()
        if other.section is section and set(keys) <= section.model_fields.keys()
    ]
    hint = f"; add {' or '.join(able)}" if able else ""
    names = ", ".join(f"cluster.{key}" for key in keys)
    return f"cluster: {names} means nothing {executor.place}{hint}"
