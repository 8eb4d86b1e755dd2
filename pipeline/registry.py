"""Registering by being in a folder: what the modules of a package declare."""

import importlib
import pkgutil
from typing import TypeVar

T = TypeVar("T")


def declared(package: str, name: str, kind: type[T]) -> list[T]:
    """The values called ``name`` in the modules of a package, in the modules' order.

    Modules and packages directly in it count; those that declare no such value do not.
    """
    values: list[T] = []
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        value = getattr(importlib.import_module(f"{package}.{entry.name}"), name, None)
        if value is not None:
            assert isinstance(value, kind), f"{package}.{entry.name}.{name}"
            values.append(value)
    return values
