"""What pydantic finds wrong, in the words that a user reads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.files import Json


def messages(details: Iterable[Any], given: Json, unknown_key: Callable[[str], str]) -> list[str]:
    """Pydantic's errors about ``given`` in words, one for each value that is wrong.

    ``unknown_key`` gives the message for a key that there is not. Of a value that may be of several
    kinds pydantic has an error for each, whose places end in the kind; the user typed one value.
    """
    by_key: dict[str, list[Any]] = {}
    for detail in details:
        by_key.setdefault(_key(detail, given), []).append(detail)
    return [_message(key, wrong, unknown_key) for key, wrong in by_key.items()]


def _key(detail: Any, given: Json) -> str:
    """The key of the value that an error is about, without what pydantic adds to its place."""
    key, value = "", given
    rest = list(detail["loc"])
    while rest:
        part = rest.pop(0)
        is_nested = isinstance(value, Mapping) and part not in value and "." in str(part)
        if is_nested:  # a dotted key that was typed as groups of keys
            rest[:0] = str(part).split(".")
            continue
        is_there = (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if is_there:
            value = value[part]
        elif detail["type"] != "missing":
            break
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key.lstrip(".")


def _message(key: str, wrong: Sequence[Any], unknown_key: Callable[[str], str]) -> str:
    detail = wrong[0]
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(key)
        case "missing":
            return f"{key}: is missing; give it as {key}=VALUE"
        case "value_error" if isinstance(detail["input"], Mapping):
            return f"{key}: {detail['ctx']['error']}"
        case "value_error":
            return f"{key}: {_shown(detail)} is wrong; {detail['ctx']['error']}"
    is_name = isinstance(detail["input"], str) and detail["input"].isidentifier()
    example = detail["input"] if is_name else "44,52,4"
    allowed = dict.fromkeys(
        ALLOWED.get(each["type"], each["msg"]).format(example=example, **each.get("ctx", {}))
        for each in wrong
    )
    return f"{key}: {_shown(detail)} is wrong; allowed is {' or '.join(allowed)}"


def _shown(detail: Any) -> str:
    try:
        shown = repr(detail["input"])
    except ValueError:  # a number of too many digits
        return "a number of thousands of digits"
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."


MOST_SHOWN = 200


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
    "list_type": "a list, e.g. [{example}]",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
}
"""What is allowed instead, by the type of pydantic's error."""
