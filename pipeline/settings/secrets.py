"""The environment's secrets: they never get into a configuration, a log or a file."""

import os
import re
from collections.abc import Iterator, Mapping

from pipeline.files import Json

SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
SECRET_LENGTH = 8


def secret_problems(value: Json, key: str = "") -> Iterator[str]:
    """Problems for values that hold a secret of the environment: configurations are stored."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from secret_problems(entry, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for entry in value:
            yield from secret_problems(entry, key)
    elif isinstance(value, str):
        for name, secret in _environment_secrets().items():
            if secret in value:
                yield (
                    f"{key}: holds the secret of the environment variable {name}; "
                    "configurations are stored with the run, so leave it in the environment"
                )


def without_secrets(text: str) -> str:
    """``text`` with the environment's secrets made unreadable."""
    for secret in _environment_secrets().values():
        text = text.replace(secret, "***")
    return text


def _environment_secrets() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH
    }
