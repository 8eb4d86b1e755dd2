"""The whole schema, put together from the sections of settings and of the stages.

Everything that can be said about a value alone is checked here.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from functools import cache
from typing import Any, get_origin

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from pipeline.config.cluster import cluster_section, sections
from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.settings.cluster import ClusterSection
from pipeline.settings.core import Config
from pipeline.settings.messages import message
from pipeline.settings.secrets import secret_problems, without_secrets
from pipeline.settings.section import Section
from pipeline.stages import stages


@cache
def schema() -> type[Config]:
    """The configuration with every section."""
    owned: dict[str, Any] = {
        stage.section.key: _field(stage.section) for stage in stages() if stage.section
    }
    return create_model("Config", __base__=Config, __doc__=Config.__doc__, **owned)


def _field(section: type[Section]) -> tuple[Any, Any]:
    """A section may be left out where each of its keys may."""
    if any(field.is_required() for field in section.model_fields.values()):
        return section, ...
    return section, Field(default_factory=lambda: section.model_validate({}))


def known_keys() -> Iterator[str]:
    """Every key of the schema, dotted; sections alone do not count."""
    yield from dict.fromkeys(key for key, _ in _fields(schema()))


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a section and of those in it, by its dotted key."""
    for name, field in section.model_fields.items():
        inner: list[type[BaseModel]] = []
        if field.annotation is ClusterSection:
            inner = list(sections())
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner = [field.annotation]
        else:
            yield prefix + name, field
        for one in inner:
            yield from _fields(one, f"{prefix}{name}.")


def is_known(key: str) -> bool:
    """Whether the schema has the key, or a mapping that may hold it."""
    keys = set(known_keys())
    return key in keys or key.rpartition(".")[0] in _mappings()


def _mappings() -> set[str]:
    """Keys whose value is a mapping with names of the user's own."""
    return {key for key, field in _fields(schema()) if get_origin(field.annotation) is dict}


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """The message for a key that neither the schema nor ``others`` have; never shows the value."""
    near = max((*known_keys(), *others), key=lambda known: _likeness(key, known))
    hint = f"; did you mean {near}?" if _likeness(key, near) >= LIKE else ""
    return f"{key}: no such key{hint}"


LIKE = 0.7
"""Keys at least this much alike are suggested for one another."""


def _likeness(key: str, known: str) -> float:
    """How much alike two keys are, from 0 to 1; their last parts alone count a little less."""
    last = SequenceMatcher(None, key.rpartition(".")[2], known.rpartition(".")[2]).ratio()
    return max(SequenceMatcher(None, key, known).ratio(), 0.85 * last)


def validate(raw: Mapping[str, Json]) -> Config:
    """Turn composed values into a ``Config``, or raise ``ConfigError`` with every problem."""
    problems = [*secret_problems(raw), *_between_keys(raw), *_mixed_where_it_cannot_be(raw)]
    cluster, wrong = cluster_section(raw.get("cluster"), _message)
    problems += wrong
    try:
        config = schema().model_validate({**raw, "cluster": cluster})
    except ValidationError as error:
        problems += [_message(detail) for detail in error.errors()]
    if problems:
        raise ConfigError([without_secrets(problem) for problem in problems])
    return config


def _between_keys(raw: Mapping[str, Json]) -> Iterator[str]:
    for stage in stages():
        given = raw.get(stage.section.key) if stage.section else None
        if stage.section and isinstance(given, Mapping):
            yield from stage.section.problems(given)


def _mixed_where_it_cannot_be(raw: Mapping[str, Json]) -> Iterator[str]:
    scoring, model = raw.get("scoring"), raw.get("model")
    if isinstance(scoring, Mapping) and isinstance(model, Mapping):
        dtype = model.get("dtype")
        if scoring.get("precision") == "mixed" and dtype in ("bfloat16", "float16"):
            yield (
                f"scoring.precision: mixed decides as float32 does, and model.dtype is {dtype}; "
                "use model.dtype=float32 or scoring.precision=model"
            )
        if scoring.get("precision") == "mixed" and model.get("offload") in ("cpu", "disk"):
            yield (
                "scoring.precision: mixed keeps a second copy of the model on the device, and "
                f"model.offload is {model['offload']}; use scoring.precision=model"
            )


def _message(detail: Any) -> str:
    return message(detail, unknown_key)
