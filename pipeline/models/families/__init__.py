"""The model families that can be pruned, a file each. A family is known by being in this folder."""

import importlib
import pkgutil
from collections.abc import Iterable

from pipeline.errors import ConfigError
from pipeline.models.families.base import Family


def families_in(folder: Iterable[str], package: str) -> dict[str, Family]:
    """Families by ``model_type``: ``FAMILY`` or ``FAMILIES`` of each file of a package."""
    known: dict[str, Family] = {}
    for file in pkgutil.iter_modules(folder):
        module = importlib.import_module(f"{package}.{file.name}")
        one = getattr(module, "FAMILY", None)
        for family in getattr(module, "FAMILIES", (one,) if one else ()):
            for model_type in family.model_types:
                assert model_type not in known, f"{model_type} is described twice"
                known[model_type] = family
    return known


FAMILIES = families_in(__path__, __name__)


PRUNED = "pruned_"
"""Before the family's name in the ``model_type`` of a model that this project has exported."""


def stock_type(model_type: str) -> str:
    """The ``model_type`` that transformers knows the family by."""
    return model_type.removeprefix(PRUNED)


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face ``model_type``; ``ConfigError`` lists the known ones."""
    try:
        return FAMILIES[stock_type(model_type)]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise ConfigError(
            [
                f"model.path: its architecture is {model_type!r}; known architectures: {known}; "
                "docs/families.md says how to describe another one"
            ]
        ) from None
