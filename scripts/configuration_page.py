#!/usr/bin/env python3
"""Write docs/configuration.md from the schema.

python scripts/configuration_page.py
"""

import ast
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from pipeline.config.cluster import sections
from pipeline.config.schema import schema
from pipeline.methods import methods
from pipeline.settings.cluster import ClusterSection
from pipeline.settings.core import PruneConfig

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Every configuration key

Given on the command line as `KEY=VALUE`, e.g. `python launch.py prune.target_ratio=15`. A group is
chosen as `GROUP=OPTION`; what an option sets is in `conf/GROUP/OPTION.yaml`, and a key given on the
command line wins. `+paper=MODEL` has the paper's settings of a model. A default is what
`python launch.py model=hf` has, below an option what that option has. Without a word,
`python launch.py` prunes the small model that comes with the project, with texts and amounts of
its own (`conf/model/builtin.yaml`); other models may set others, too. Written from the
sections of `pipeline/settings/`, of the stages and of the methods by
`python scripts/configuration_page.py`.
"""

TABLE = "\n| key | allowed | default | meaning |\n| --- | --- | --- | --- |\n"
CONF = ROOT / "conf"
ANY_MODEL = {"model": "hf"}
"""The option that stands for all models."""
NEEDED = "has to be given"
Values = dict[str, Any]
"""What an option sets, by dotted keys below the group's name."""


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    base = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    chosen = {g: o for each in base["defaults"] if isinstance(each, dict) for g, o in each.items()}
    chosen |= ANY_MODEL
    for name, field in schema().model_fields.items():
        section = field.annotation
        if not is_section(section):
            parts.append(f"\n## {name}\n{TABLE}{row(name, schema(), name, {name: base[name]})}")
            continue
        options = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
        values = flat(base.get(name) or {}, f"{name}.") | option(name, chosen.get(name))
        parts.append(f"\n## {name}\n\n{section.__doc__}\n")
        if options:
            parts.append(f"\nOptions: {', '.join(f'`{name}={option}`' for option in options)}\n")
        if section is ClusterSection:
            for of_one in sections():
                choice = type_name(of_one.model_fields["name"].annotation)
                parts.append(f"\n### cluster={choice}\n\n{of_one.__doc__}\n")
                parts += rows(name, of_one, option(name, choice))
        elif issubclass(section, PruneConfig):
            parts += rows(name, PruneConfig, values)
            for method in methods().values():
                parts.append(f"\n### prune={method.name}\n\n{method.section.__doc__}\n")
                if method.section.model_fields.keys() > PruneConfig.model_fields.keys():
                    values = option(name, method.name)
                    parts += rows(name, method.section, values, PruneConfig.model_fields)
        else:
            # techniques of recovery have the names of their options, and keys only there
            for each in sorted(set(options) & set(section.model_fields)):
                values = option(name, each) | values
            parts += rows(name, section, values)
    return "".join(parts)


def option(group: str, name: str | None) -> Values:
    """What an option's file sets."""
    path = CONF / group / f"{name}.yaml"
    return flat(yaml.safe_load(path.read_text("utf-8")) or {}, f"{group}.") if name else {}


def flat(values: Values, prefix: str) -> Values:
    """By dotted keys; empty mappings are values."""
    found: Values = {}
    for key, value in values.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {}
        found |= inner or {f"{prefix}{key}": value}
    return found


def rows(
    name: str, section: type[BaseModel], values: Values, without: Collection[str] = ()
) -> Iterator[str]:
    """The table of a section's keys, but for those in ``without``."""
    yield TABLE
    fields = {key: entry for key, entry in section.model_fields.items() if key not in without}
    for key, entry in fields.items():
        if not is_section(entry.annotation):
            yield row(f"{name}.{key}", section, key, values)
    for key, entry in fields.items():
        if not is_section(entry.annotation):
            continue
        inner = entry.annotation.model_fields
        first = next(iter(inner.values())).annotation
        if not is_section(first):
            yield from (
                row(f"{name}.{key}.{part}", entry.annotation, part, values) for part in inner
            )
            continue
        yield (
            f"| `{name}.{key}.STAGE.KEY` | as `{name}.KEY` | | {described(section, key)} STAGE is "
            f"one of {', '.join(inner)}; KEY one of {', '.join(first.model_fields)} |\n"
        )


def is_section(annotation: Any) -> bool:
    """Whether a key holds further keys."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def row(key: str, section: type[BaseModel], name: str, values: Values) -> str:
    """The line of a table for a section's key that has this name there."""
    description = described(section, name).replace("|", "\\|")
    field = section.model_fields[name]
    return f"| `{key}` | {allowed(field)} | {default(key, field, values)} | {description} |\n"


def default(key: str, field: FieldInfo, values: Values) -> str:
    """What a key is where nobody gives it."""
    if (value := values.get(key, ...)) is ...:
        if field.is_required():
            return NEEDED
        value = to_jsonable_python(field.get_default(call_default_factory=True))
    if value == "???":
        return NEEDED
    texts = {None: "null", True: "true", False: "false"}
    text = texts[value] if value is None or isinstance(value, bool) else str(value)
    return f"`{text.replace(chr(39), '')}`"


def described(section: type[BaseModel], name: str) -> str:
    """What stands under a key: where the section declares it, or one that it is made from."""
    texts = (docstrings(each).get(name) for each in section.__mro__ if is_section(each))
    return " ".join(next(filter(None, texts), "").split())


@cache
def docstrings(section: type[BaseModel]) -> dict[str, str]:
    """The texts under the fields in the source of a class. One made by ``with_keys`` has none."""
    try:
        source = inspect.getsource(section)
    except OSError:
        return {}
    [definition] = ast.parse(dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: text.value.value
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def allowed(field: FieldInfo) -> str:
    """Type and bounds in words."""
    name = type_name(field.annotation)
    bounds = [
        f"{sign} {getattr(bound, attribute):g}"
        for bound in field.metadata
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(bound, attribute, None) is not None
    ]
    return ", ".join([name, *bounds])


def type_name(annotation: Any) -> str:
    """A type as a person would say it."""
    text = str(annotation) if not isinstance(annotation, type) else annotation.__name__
    choices = re.findall(r"Literal\[(.*?)\]", text)
    rest = re.sub(r"Literal\[.*?\]", "", text)
    if choices:
        chosen = choices[0].replace("'", "")
        others = {"bool": "true, false, ", "float": "number, "}
        flags = "".join(words for name, words in others.items() if name in rest)
        return flags + chosen + (", null" if type(None) in get_args(annotation) else "")
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
    if "list" in text:
        return "list of numbers" if "float" in text else "list of texts"
    if "dict" in text:
        return "mapping of values" if "int" in text else "mapping of texts"
    if annotation == bool | str:
        return "true, false, json"
    base = next(meaning for name, meaning in words.items() if name in text)
    return base + (", null" if "None" in text else "")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
