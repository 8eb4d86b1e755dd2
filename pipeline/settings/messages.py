"""What pydantic finds wrong, in the words that a user reads."""

from collections.abc import Callable, Mapping
from typing import Any


def message(detail: Any, unknown_key: Callable[[str], str]) -> str:
    """One of pydantic's errors in words; ``unknown_key`` gives the message for such a key."""
    parts = [str(part) for part in detail["loc"]]
    key = "".join(f"[{p}]" if p.isdecimal() else f".{p}" for p in parts).lstrip(".")
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(key)
        case "missing":
            return f"{key}: is missing; give it as {key}=VALUE"
        case "value_error" if isinstance(detail["input"], Mapping):
            return f"{key}: {detail['ctx']['error']}"
        case "value_error":
            return f"{key}: {detail['input']!r} is wrong; {detail['ctx']['error']}"
    allowed = ALLOWED.get(detail["type"], detail["msg"]).format(**detail.get("ctx", {}))
    return f"{key}: {detail['input']!r} is wrong; allowed is {allowed}"


ALLOWED = {
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "less_than_equal": "a number of at most {le:g}",
    "dict_type": "a mapping, e.g. {{nice: 100}}",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "list_type": "a list, e.g. [44,52,4]",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', a letter or digit first",
}
"""What is allowed instead, by the type of pydantic's error."""
