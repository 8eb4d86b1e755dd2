"""Registering by being in a folder: what the modules of a package declare."""

import importlib
import pkgutil
from typing import TypeVar

T = TypeVar("T")


def declared(package: str, name: str, kind: type[T]) -> list[T]:
    """The values called ``name`` in the modules of a package, in the modules' order.

    Modules and packages directly in it count; those that declare no such value do not.
    """
    entries = pkgutil.iter_modules(importlib.import_module(package).__path__)
    found = (declared_in(f"{package}.{entry.name}", name, kind) for entry in entries)
    return [value for value in found if value is not None]


def declared_in(module: str, name: str, kind: type[T]) -> T | None:
    """The value called ``name`` in a module; None where it has none."""
    value = getattr(importlib.import_module(module), name, None)
    assert value is None or isinstance(value, kind), f"{module}.{name}"
    return value
