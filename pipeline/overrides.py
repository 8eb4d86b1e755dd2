"""The command line before Hydra sees it: unknown groups, options and keys, all at once.

Hydra stops at the first of them. Here each becomes a problem of its own, and what is right goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pipeline.config import known_keys, unknown_key


@dataclass(frozen=True, slots=True)
class CheckedOverrides:
    """Arguments that Hydra can compose, and what was wrong with the others."""

    arguments: list[str]
    problems: list[str]


def check(arguments: Sequence[str], config_dir: Path) -> CheckedOverrides:
    """Sort the command line's arguments into those that can be composed and problems."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    groups = _groups(config_dir)
    keys = set(known_keys())
    good: list[str] = []
    problems: list[str] = []
    options = iter(arguments)
    for argument in options:
        if argument.startswith("-"):
            good.append(argument)
            if argument in FLAGS_WITH_VALUE:
                good.extend(value for value in [next(options, None)] if value is not None)
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException as error:
            reason = (str(error).splitlines() or [""])[0]
            problems.append(f"{argument.partition('=')[0]}: cannot be read as KEY=VALUE: {reason}")
            continue
        group = override.key_or_group
        if group.startswith("hydra"):
            good.append(argument)
        elif group in groups and isinstance(value := override.value(), str):
            if value in groups[group]:
                good.append(argument)
            else:
                problems.append(_unknown_option(group, value, groups[group]))
        elif group in keys:
            good.append(argument)
        else:
            problems.append(_unknown(group, groups))
    return CheckedOverrides(good, problems)


FLAGS_WITH_VALUE = {
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--cfg", "-c",
    "--package", "-p", "--experimental-rerun",
}  # fmt: skip


def _groups(config_dir: Path) -> dict[str, list[str]]:
    """The options of each config group."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in config_dir.iterdir()
        if folder.is_dir()
    }


def _unknown_option(group: str, option: str, options: list[str]) -> str:
    near = get_close_matches(option, options, n=1, cutoff=0.5)
    hint = f"did you mean {group}={near[0]}? Allowed" if near else "allowed"
    return f"{group}: {option!r} is not there; {hint}: {', '.join(options)}"


def _unknown(name: str, groups: dict[str, list[str]]) -> str:
    if "." not in name and (near := get_close_matches(name, list(groups), n=1, cutoff=0.5)):
        return f"{name}: no such key; did you mean {near[0]}?"
    return unknown_key(name)
