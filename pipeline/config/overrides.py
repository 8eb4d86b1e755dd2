"""The command line before Hydra sees it: unknown groups, options and keys, all at once.

Hydra stops at the first of them. Here each becomes a problem of its own, and what is right goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pipeline.config.schema import is_known, unknown_key
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
    groups = _groups()
    good: list[str] = []
    problems: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("-"):
            good.append(argument)
            takes = argument in FLAGS_WITH_VALUE
            may_take = argument in FLAGS_WITH_OPTION and rest and "=" not in rest[0]
            if rest and (takes or may_take):
                good.append(rest.pop(0))
            continue
        wrong = _problem(argument, groups)
        if wrong is None:
            good.append(argument)
        else:
            problems.append(without_secrets(wrong))
    return CheckedOverrides(good, problems)


ADDING_UP = ("export",)
"""Groups of which several options may be chosen at once, as a list."""


def _problem(argument: str, groups: dict[str, list[str]]) -> str | None:
    """What is wrong with an override; None where Hydra can compose it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        name = argument.partition("=")[0]
        return (
            f"{name}: cannot be read as KEY=VALUE: quote a value with special characters twice: "
            f"'{name}=\"VALUE\"'"
        )
    key = override.key_or_group
    if key.partition(".")[0] == "hydra" or key.startswith("hydra/"):
        return None
    if key not in groups:
        return None if is_known(key) else unknown_key(key, groups)
    if override.is_delete():
        return None
    swept = override.is_sweep_override()
    choices = list(override.sweep_string_iterator()) if swept else [override.value()]
    for choice in choices:
        several = choice if isinstance(choice, list) and key in ADDING_UP else [choice]
        for option in several:
            if option not in groups[key]:
                return _unknown_option(key, str(option), groups[key])
    return None


FLAGS_WITH_VALUE = {
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--cfg", "-c",
    "--package", "-p", "--experimental-rerun",
}  # fmt: skip
FLAGS_WITH_OPTION = {"--info", "-i"}


def _groups() -> dict[str, list[str]]:
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
