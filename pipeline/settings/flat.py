"""A configuration as plain values by dotted keys. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted keys."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        values |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
        )
    return values
