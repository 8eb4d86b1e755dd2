"""From the command line to configurations: Hydra composes, the schema checks."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.config.overrides import CONF, ROOT, SEARCH_PATH, check, flags_first
from pipeline.config.schema import is_known, validate
from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.settings.core import Config
from pipeline.settings.section import BUILTIN

if TYPE_CHECKING:
    from omegaconf import DictConfig

T = TypeVar("T")
MULTIRUN = ("-m", "--multirun")


@dataclass(frozen=True, slots=True)
class Combination:
    """One configuration as Hydra composed it, and the overrides that it has."""

    raw: "DictConfig"
    overrides: tuple[str, ...]


def compose_command(arguments: list[str], problems: list[str]) -> tuple[list[Combination], bool]:
    """Every configuration that Hydra makes of a command line, and whether they are a sweep.

    Raises ``ConfigError`` for what cannot be composed, with ``problems`` that were found before.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    composed: list[Combination] = []
    modes: list[RunMode | None] = []

    def task(raw: "DictConfig") -> None:
        settings = HydraConfig.get()
        given: Any = OmegaConf.to_container(settings.overrides.task)
        composed.append(Combination(raw, tuple(given)))
        modes.append(settings.mode)

    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # Hydra looks for launchers in hydra_plugins
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of exiting with 1
    compose_all = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    with tempfile.TemporaryDirectory() as scratch:
        # Hydra keeps what was typed for a sweep, unchecked; nobody is to find it
        flags = [argument for argument in arguments if argument in MULTIRUN]
        rest = [argument for argument in arguments if argument not in MULTIRUN]
        if any(argument.startswith(("sweep=", "+sweep=")) for argument in rest):
            flags = ["--multirun"]  # a chosen sweep is one without the flag, too
        of_hydra = [
            f"hydra.sweep.dir={scratch}",
            "hydra/launcher=plan",
            "hydra/sweeper=plan",
            SEARCH_PATH,
        ]

        def compose(overrides: list[str]) -> None:
            composed.clear()
            modes.clear()
            if not any(each.startswith("-") for each in (*flags, *overrides)):
                composed.append(_of_one_run(overrides))
                return
            sys.argv[1:] = [*flags, *flags_first(overrides), *of_hydra]
            compose_all(task)()

        try:
            _with_absent_keys(rest, compose)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError([*problems, _in_a_line(error)]) from error
    return composed, RunMode.MULTIRUN in modes


def _of_one_run(overrides: list[str]) -> Combination:
    """What Hydra makes of overrides, without flags.

    ``hydra.main`` would compose them twice, to look for a sweep first.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    with initialize_config_dir(str(CONF), version_base="1.3"):
        main: Any = GlobalHydra.instance().hydra
        raw = main.compose_config("config", [*overrides, SEARCH_PATH], RunMode.RUN)
    given: Any = OmegaConf.to_container(raw.hydra.overrides.task)
    with open_dict(raw):
        del raw["hydra"]
    return Combination(raw, tuple(given))


def compose_one(overrides: Sequence[str]) -> Combination:
    """One combination, of overrides that Hydra has taken before or that are made like those.

    Raises ``ConfigError`` for what cannot be composed.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        return _with_absent_keys(list(overrides), _of_one_run)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([_in_a_line(error)]) from error


def override_of(key: str, value: Json) -> str:
    """The override that gives a key, or a group, a value: text in quotes where it needs them."""
    return f"{key}={_written(value)}"


def _written(value: Json) -> str:
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value not in RESERVED
        escaped = re.sub(r"(\\*)('|$)", _doubled, value)
        return value if plain else f"'{escaped}'"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}: {_written(each)}' for name, each in value.items())}}}"
    return json.dumps(value)


def _doubled(found: re.Match[str]) -> str:
    """Backslashes count for two before a quote alone, as Hydra reads them."""
    return found[1] * 2 + ("\\'" if found[2] else "")


RESERVED = ("true", "false", "null", "nan", "inf")
"""Words that are no text to Hydra."""


def compose_overrides(overrides: Sequence[str]) -> Config:
    """The configuration of one run, composed without a command line.

    Raises ``ConfigError`` with everything that is wrong.
    """
    if flags := [override for override in overrides if override.startswith("-")]:
        raise ConfigError([
            f"{flags[0]}: is for the command line: python launch.py {' '.join(overrides)}; from "
            "Python every call is one run: multipruner.open_sweep(NAME).launch(...)"
        ])  # fmt: skip
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    checked = check(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            raw = _with_absent_keys(
                checked.arguments, lambda given: compose("config", [*given, SEARCH_PATH])
            )
            return from_composed(raw, checked.problems, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([*checked.problems, _in_a_line(error)]) from error


def _in_a_line(error: Exception) -> str:
    """What Hydra or OmegaConf says, after the key that it is about where it names one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    said = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=")))
    if re.match(r"[\w.]+: ", said):
        return said
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\. ", said):
        key, values = several.groups()
        return (
            f"{key}: {values} are several values; a run for each: python launch.py -m "
            f"{key}={values}; a list of them: '{key}=[{values}]'; one text: '{key}=\"{values}\"'"
        )
    quoted = re.search(r"'([\w./@]+)(?:=[^']*)?'", said)
    key = keys[0] if keys and keys[0] else quoted[1] if quoted else "command line"
    return f"{key}: {said}"


def _with_absent_keys(overrides: list[str], compose: Callable[[list[str]], T]) -> T:
    """What ``compose`` makes of overrides, of keys too that the chosen options do not list.

    Hydra refuses those one by one. The schema knows them, or says to what they mean nothing.
    """
    from hydra.errors import HydraException

    while True:
        try:
            return compose(overrides)
        except HydraException as error:
            refused = re.match(r"Could not override '([^']+)'", str(error))
            key = refused[1] if refused else ""
            at = next((i for i, each in enumerate(overrides) if each.startswith(f"{key}=")), None)
            if at is None or not is_known(key):
                raise
            overrides = [*overrides[:at], f"++{overrides[at]}", *overrides[at + 1 :]]


def from_composed(
    raw: "DictConfig", problems: Sequence[str] = (), overrides: Collection[str] = ()
) -> Config:
    """The configuration that Hydra composed, of these overrides, or keys of them, among others.

    Raises ``ConfigError`` with ``problems``, found before, and all that come to light here.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("builtin", lambda name: str(BUILTIN / name), replace=True)
    unresolved: dict[str, str] = {}
    values = _resolved(raw, "", unresolved)
    wrong = [f"{key}: {reason}" for key, reason in unresolved.items()]
    try:
        config = validate(values, {overridden_key(override) for override in overrides})
    except ConfigError as error:
        wrong += [p for p in error.problems if p.partition(":")[0] not in unresolved]
    if problems or wrong:
        raise ConfigError([*problems, *wrong])
    return config


def overridden_key(override: str) -> str:
    """The key or group that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def _resolved(node: "DictConfig", prefix: str, unresolved: dict[str, str]) -> dict[str, Json]:
    """Plain values with interpolations resolved; what has none goes to ``unresolved`` with why."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values: dict[str, Json] = {}
    for name in map(str, node):
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name):
            continue
        try:
            value = node[name]
            if isinstance(value, ListConfig):
                value = OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException as error:
            unresolved[key] = str(error).splitlines()[0]
            continue
        is_section = isinstance(value, DictConfig)
        values[name] = _resolved(value, f"{key}.", unresolved) if is_section else value
    return values
