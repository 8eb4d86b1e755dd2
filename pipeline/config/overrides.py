"""The command line before Hydra sees it: unknown groups, options and keys, all at once.

Hydra stops at the first of them. Here each becomes a problem of its own, and what is right goes on.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from pipeline.config.schema import is_known, unknown_key
from pipeline.given import folder_problem
from pipeline.settings.secrets import without_secrets

ROOT = Path(__file__).resolve().parents[2]
CONF, SWEEPS = ROOT / "conf", ROOT / "sweeps"
SEARCH_PATH = f"hydra.searchpath=[{SWEEPS.as_uri()}]"
"""What tells Hydra to look for groups in ``SWEEPS``, too."""


@dataclass(frozen=True, slots=True)
class CheckedOverrides:
    """Arguments that Hydra can compose, and what was wrong with the others."""

    arguments: list[str]
    problems: list[str]


def check(arguments: Sequence[str]) -> CheckedOverrides:
    """Sort the command line's arguments into those that can be composed and problems."""
    known = groups()
    good: list[str] = []
    problems: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("-"):
            flag, wrong = _flag(argument, rest)
            good += [] if wrong else flag
            problems += [wrong] if wrong else []
            continue
        wrong = _problem(argument, known)
        if wrong is None:
            good.append(_as_hydra_has_it(argument, known))
        else:
            problems.append(without_secrets(wrong))
    return CheckedOverrides(good, problems)


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Checked arguments with the flags before the overrides: Hydra takes them apart only so."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("-"):
            flags += _flag(argument, rest)[0]
        else:
            overrides.append(argument)
    return [*flags, *overrides]


ADDING_UP = ("export",)
"""Groups of which several options may be chosen at once, as a list."""


def _problem(argument: str, groups: dict[str, list[str]]) -> str | None:
    """What is wrong with an override; None where Hydra can compose it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(argument)
    except (HydraException, ValueError, RecursionError):  # of long numbers, of deep nesting
        name, equals, _ = argument.partition("=")
        hint = f"quote a value with special characters twice: '{name}=\"VALUE\"'"
        known = "what can be typed is in python launch.py --help"
        return f"{name}: cannot be read as KEY=VALUE: {hint if equals else known}"
    key = override.key_or_group
    if re.split("[./@]", key)[0] == "hydra":
        refusal = f"launch.py sets Hydra up itself; allowed of it is only {OF_HYDRA}KEY=VALUES"
        return None if key.startswith(OF_HYDRA) else f"{key}: {refusal}"
    if key not in groups:
        return None if is_known(key) else unknown_key(key, groups)
    swept = override.is_discrete_sweep()
    choices = override.sweep_string_iterator() if swept else [override.value()]
    options = (option for choice in choices for option in _options(key, choice))
    wrong = (_unknown_option(key, str(o), groups[key]) for o in options if o not in groups[key])
    return None if override.is_delete() else next(wrong, None)


def _as_hydra_has_it(argument: str, groups: Iterable[str]) -> str:
    """A choice with a plus sign where nothing of its group is chosen without it, else without.

    Hydra asks for one or the other; what is meant is clear without.
    """
    bare = argument.lstrip("+")
    group = bare.partition("=")[0]
    if group not in groups:
        return argument
    return bare if group in chosen_options() else f"+{bare}"


@cache
def chosen_options() -> dict[str, str]:
    """Of every group of which ``conf/config.yaml`` chooses an option, that one."""
    import yaml

    content = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    pairs = [each.items() for each in content["defaults"] if isinstance(each, dict)]
    return {group: option for each in pairs for group, option in each}


def _options(group: str, choice: object) -> Iterable[object]:
    return choice if isinstance(choice, list) and group in ADDING_UP else [choice]


OF_HYDRA = "hydra.sweeper.params."
"""Hydra's own keys that a user may set: what varies, as the files of ``sweeps/`` have it."""
ANY: tuple[str, ...] = ()
FLAGS_WITH_VALUE: dict[str, tuple[str, ...]] = {
    "--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all"),
    "--config-dir": ANY, "-cd": ANY, "--config-name": ANY, "-cn": ANY,
}  # fmt: skip
"""Flags of Hydra's, and the values that each may have; any, where there are none."""
PARTS_OF_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS_WITH_OPTION = {"--info": PARTS_OF_INFO, "-i": PARTS_OF_INFO}
NOT_HERE = {
    "--shell-completion", "-sc", "--experimental-rerun", "--config-path", "-cp", "--package", "-p",
}  # fmt: skip
"""Flags of Hydra's that have a value, and no use here."""
PLAIN_FLAGS = {"-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version",
               "--resolve"}  # fmt: skip


def _flag(argument: str, rest: list[str]) -> tuple[list[str], str | None]:
    """A flag with its value, taken from ``rest`` or its own end; and what is wrong with it."""
    flag, equals, value = argument.partition("=")
    if flag in PLAIN_FLAGS and not equals:
        return [argument], None
    allowed = FLAGS_WITH_VALUE.get(flag, FLAGS_WITH_OPTION.get(flag))
    if allowed is None:
        if flag in NOT_HERE and not equals and rest:
            rest.pop(0)
        known = ", ".join(f for f in sorted({*PLAIN_FLAGS, *FLAGS_WITH_VALUE, *FLAGS_WITH_OPTION}))
        return [], f"{argument or '-'}: no such flag here; allowed: {known}"
    taken = [argument]
    if not equals and rest and (flag in FLAGS_WITH_VALUE or "=" not in rest[0]):
        value = rest.pop(0)
        taken.append(value)
    choice = f": one of {', '.join(allowed)}" if allowed else ""
    if not value and flag in FLAGS_WITH_VALUE:
        return [], f"{flag}: needs a value{choice}"
    if value and allowed and value not in allowed:
        return [], f"{flag}: {value!r} is not there{choice}"
    if flag in ("--config-dir", "-cd") and (problem := folder_problem(value)):
        return [], f"{flag}: {value} {problem}"
    return taken, None


def groups() -> dict[str, list[str]]:
    """The options of each config group."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for config_dir in (CONF, SWEEPS)
        for folder in config_dir.iterdir()
        if folder.is_dir()
    }


def _unknown_option(group: str, option: str, options: list[str]) -> str:
    near = get_close_matches(option, options, n=1, cutoff=0.5)
    hint = f"did you mean {group}={near[0]}? Allowed" if near else "allowed"
    return f"{group}: {option!r} is not there; {hint}: {', '.join(options)}"
