"""The whole schema, put together from the sections of settings, stages and methods.

Everything that can be said about a value alone is checked here.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.cluster import cluster_section, sections
from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.methods import methods
from pipeline.settings.cluster import ClusterSection
from pipeline.settings.core import DEFAULT_METHOD, Config, PruneConfig
from pipeline.settings.messages import messages
from pipeline.settings.secrets import secret_problems, without_secrets
from pipeline.settings.section import Section
from pipeline.stages import stages


@cache
def schema(method: str = DEFAULT_METHOD) -> type[Config]:
    """The configuration with every section; ``prune`` has the keys of a method."""
    owned: dict[str, Any] = {section.key: _field(section) for section in _own_sections()}
    owned["prune"] = _field(methods()[method].section)
    return Config.with_keys(**owned)


def _field(section: type[Section]) -> tuple[Any, Any]:
    """A section may be left out where each of its keys may."""
    if any(field.is_required() for field in section.model_fields.values()):
        return section, ...
    return section, Field(default_factory=lambda: section.model_validate({}))


@cache
def known_keys() -> tuple[str, ...]:
    """Every key, dotted, whatever the method and the executor; sections alone do not count."""
    return tuple(_fields_of_all())


@cache
def _fields_of_all() -> dict[str, FieldInfo]:
    """Every field by its dotted key, whatever the method and the executor."""
    return {key: field for method in methods() for key, field in _fields(schema(method))}


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


def decisive(settings: Mapping[str, Json]) -> dict[str, Json]:
    """Of a configuration's values by dotted keys those that may decide a result."""
    method = str(settings.get("prune.method"))
    whole = schema(method if method in methods() else DEFAULT_METHOD)
    return {key: value for key, value in settings.items() if whole.decides(key)}


def is_known(key: str) -> bool:
    """Whether the schema has the key, or a mapping that may hold it."""
    if key in known_keys():
        return True
    for mapping, entry in _mappings().items():
        if key.startswith(f"{mapping}."):
            fields, entry_key = getattr(entry, "model_fields", ()), key.removeprefix(f"{mapping}.")
            _, _, inner = entry_key.partition(".")
            name, _, last = entry_key.rpartition(".")
            # a name may be a key itself, with dots
            is_own = not inner or inner in fields
            return is_own or is_known(entry_key) or (last in fields and is_known(name))
    return False


def _mappings() -> dict[str, Any]:
    """Keys whose value is a mapping with names of the user's own, and what each name has."""
    fields = _fields_of_all().items()
    return {
        key: get_args(field.annotation)[1]
        for key, field in fields
        if get_origin(field.annotation) is dict
    }


def _sections() -> dict[str, type[Section]]:
    """All sections that are the same for every method, by key."""
    fields = {name: field.annotation for name, field in schema().model_fields.items()}
    return {
        name: section
        for name, section in fields.items()
        if isinstance(section, type) and issubclass(section, Section)
    }


def of_today(settings: Mapping[str, Json]) -> dict[str, Json]:
    """A configuration that an earlier version wrote, with the keys of this one."""
    sections = _sections()
    return {
        name: sections[name].of_today(values)
        if name in sections and isinstance(values, Mapping)
        else values
        for name, values in settings.items()
    }


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """The message for a key that neither the schema nor ``others`` have; never shows the value."""
    section, _, rest = key.partition(".")
    if rest in getattr(_sections().get(section), "moved", {}):
        now = f"{section}.{_sections()[section].moved[rest]}"
        return f"{key}: is {now} now; type {now}=VALUE"
    near = max((*known_keys(), *others), key=lambda known: _likeness(key, known))
    hint = f"; did you mean {near}?" if _likeness(key, near) >= LIKE else ""
    return f"{key}: no such key{hint}"


LIKE = 0.7
"""Keys at least this much alike are suggested for one another."""


def _likeness(key: str, known: str) -> float:
    """How much alike two keys are, from 0 to 1; their last parts alone count a little less."""
    last = SequenceMatcher(None, key.rpartition(".")[2], known.rpartition(".")[2]).ratio()
    return max(SequenceMatcher(None, key, known).ratio(), 0.85 * last)


def validate(composed: Mapping[str, Json], typed: Collection[str] = ()) -> Config:
    """Turn composed values into a ``Config``, or raise ``ConfigError`` with every problem.

    ``typed`` are the keys that the user gave: one that means nothing to what is chosen is wrong.
    One that an option set for every method (``+paper``, ``model``) is left out.
    """
    raw = _for_method(composed)
    problems = [f"{key}: {why}" for key, why in idle(composed, sorted(typed)).items()]
    problems += [
        *secret_problems(raw),
        *_between_keys(raw),
        *_mixed_where_it_cannot_be(raw),
    ]
    cluster, wrong = cluster_section(raw.get("cluster"), _messages)
    problems += wrong
    method = _method_of(raw)
    known = method if method in methods() else DEFAULT_METHOD
    try:
        config = schema(known).model_validate({**raw, "cluster": cluster})
    except ValidationError as error:
        details = error.errors()
        if method != known:  # its keys are not known either
            details = [detail for detail in details if detail["loc"][0] != PruneConfig.key]
        problems += _messages(details, raw)
    if method != known:
        problems.append(f"prune.method: {method!r} is not there; allowed: {', '.join(methods())}")
    no_text = dict(_no_text(raw))
    problems = [*no_text.values(), *(p for p in problems if p.partition(": ")[0] not in no_text)]
    if problems:
        raise ConfigError([without_secrets(problem) for problem in problems])
    return config


def idle(raw: Mapping[str, Json], keys: Iterable[str]) -> dict[str, str]:
    """Of these dotted keys those that mean nothing to what the values choose, each with why."""
    method, not_read = methods().get(_method_of(raw)), {}
    if method is not None:
        own = method.section.model_fields
        why = f"means nothing to prune={method.name}; its keys are {', '.join(own)}"
        others = {key for each in methods().values() for key in each.section.model_fields}
        not_read = {f"{PruneConfig.key}.{key}": why for key in sorted(others - own.keys())}
    for section in _own_sections():
        given = raw.get(section.key)
        inner = section.idle(given) if isinstance(given, Mapping) else {}
        not_read |= {f"{section.key}.{name}": why for name, why in inner.items()}
    return {
        key: why
        for key in keys
        for start, why in not_read.items()
        if key == start or key.startswith(f"{start}.")
    }


def _own_sections() -> list[type[Section]]:
    """Those that stages own."""
    return [stage.section for stage in stages() if stage.section]


def _for_method(raw: Mapping[str, Json]) -> dict[str, Json]:
    """The values without keys that only other methods have."""
    method, section = methods().get(_method_of(raw)), raw.get(PruneConfig.key)
    if method is None or not isinstance(section, Mapping):
        return dict(raw)
    others = idle(raw, [f"{PruneConfig.key}.{key}" for key in section])
    kept = {k: v for k, v in section.items() if f"{PruneConfig.key}.{k}" not in others}
    return {**raw, PruneConfig.key: kept}


def _no_text(value: Json, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys and problems of values with what no file, path or page can hold."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _no_text(entry, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for entry in value:
            yield from _no_text(entry, key)
    elif isinstance(value, str) and NO_TEXT.search(value):
        yield key, f"{key}: {value!r} is no text: it holds a NUL or bytes that are not UTF-8"


NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def _method_of(raw: Mapping[str, Json]) -> str:
    """The name of the method; the default where it is not given or no text."""
    section = raw.get(PruneConfig.key)
    name = section.get("method", DEFAULT_METHOD) if isinstance(section, Mapping) else None
    return name if isinstance(name, str) else DEFAULT_METHOD


def _between_keys(raw: Mapping[str, Json]) -> Iterator[str]:
    of_method = [m.section for name, m in methods().items() if name == _method_of(raw)]
    for section in (*_own_sections(), *of_method):
        given = raw.get(section.key)
        if isinstance(given, Mapping):
            yield from section.problems(given)


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


def _messages(details: Iterable[Any], given: Json) -> list[str]:
    return messages(details, given, unknown_key)
