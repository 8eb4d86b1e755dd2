"""The section ``cluster``: the keys of the executor that is chosen, and no others."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal

from pydantic import Field, ValidationError, create_model

from pipeline.executors import AnyExecutor, executors, find_executor
from pipeline.files import Json
from pipeline.settings.cluster import ClusterSection, StagesResources
from pipeline.stages import stages

Messages = Callable[[Iterable[Any], Json], list[str]]
NONE_CHOSEN = ClusterSection(name="")
"""Stands for a section that cannot be read, so that problems elsewhere come to light, too."""


def sections() -> tuple[type[ClusterSection], ...]:
    """The section of every executor, with keys for the stages; the one with most keys first."""
    of_each = [_with_stages(executor.section) for executor in executors()]
    return tuple(sorted(of_each, key=lambda section: len(section.model_fields), reverse=True))


@cache
def _with_stages(section: type[ClusterSection]) -> type[ClusterSection]:
    """The section, where it has resources for single stages with a key for each stage."""
    field = section.model_fields.get("stages")
    base: Any = field.annotation if field else None
    if field is None or not issubclass(base, StagesResources):
        return section
    each: Any = (base.resources, Field(default_factory=lambda: base.resources.model_validate({})))
    names = dict.fromkeys(stage.resources or stage.name for stage in stages())
    of_stages = base.with_keys(**dict.fromkeys(names, each))
    stages_field: Any = Field(default_factory=lambda: of_stages.model_validate({}))
    return section.with_keys(stages=(of_stages, stages_field))


def cluster_section(given: Json, messages: Messages) -> tuple[ClusterSection, list[str]]:
    """The section as the chosen executor understands it, and everything that is wrong with it.

    ``messages`` puts pydantic's errors about a value into words.
    """
    if not isinstance(given, Mapping) or "name" not in given:
        missing = {"type": "missing", "loc": ("cluster", "name"), "input": given}
        return NONE_CHOSEN, messages([missing], {"cluster": given})
    executor = find_executor(str(given["name"]))
    if executor is None:
        return NONE_CHOSEN, messages(_no_such_executor(given["name"]), {"cluster": given})
    meaningless = _meaningless(given, executor.section)
    problems = [_of_others(meaningless, executor)] if meaningless else []
    own = {key: value for key, value in given.items() if key not in meaningless}
    try:
        return _with_stages(executor.section).model_validate(own), problems
    except ValidationError as error:
        return NONE_CHOSEN, [*problems, *messages(_details(error), {"cluster": own})]


def _no_such_executor(name: Json) -> list[Any]:
    """Pydantic's errors for a name that is none of the executors'."""
    names = tuple(executor.name for executor in executors())
    field: Any = (Literal[names], ...)
    chosen = create_model("Chosen", name=field)
    try:
        chosen.model_validate({"name": name})
    except ValidationError as error:
        return _details(error)
    raise AssertionError(name)


def _details(error: ValidationError) -> list[Any]:
    """Pydantic's errors, with the section's name before the keys."""
    return [{**detail, "loc": ("cluster", *detail["loc"])} for detail in error.errors()]


def _meaningless(given: Mapping[str, Json], section: type[ClusterSection]) -> list[str]:
    """Keys that some other executor understands."""
    known = {key for other in sections() for key in other.model_fields}
    return sorted(key for key in given if key in known and key not in section.model_fields)


def _of_others(keys: list[str], executor: AnyExecutor) -> str:
    able = [
        f"cluster={other.name}"
        for other in sorted(executors(), key=lambda e: len(e.section.model_fields), reverse=True)
        if set(keys) <= other.section.model_fields.keys()
    ]
    hint = f"; add {' or '.join(able)}" if able else ""
    names = ", ".join(f"cluster.{key}" for key in keys)
    return f"cluster: {names} means nothing {executor.place}{hint}"
