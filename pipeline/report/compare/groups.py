"""What tells runs apart: the keys that differ, and the lines that join runs of different ratios."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import decisive
from pipeline.report.compare.records import ComparedRun
from pipeline.report.wording import NOTHING

RATIO = "prune.target_ratio"
METHOD = "prune.method"
DISTRIBUTION = "prune.distribution"
MEASURING = ("probe.", "evaluate.", "export.")
"""Keys of what is measured, told apart value by value (``Value.protocol``), and of its files."""
OTHER_PRUNING = "evaluate.pruning_config"
PLAIN_NAMES = {
    METHOD: "",
    DISTRIBUTION: "",
    "model.path": "",
    "calibration.dataset": "calibration",
    "calibration.block_samples": "block samples",
    "calibration.width_samples": "width samples",
    "prune.search": "search",
    "recover.steps": "recover",
    "model.dtype": "",
    "model.device": "",
}
"""How a key is called in a label; empty where the value says it all."""
IMPLIED = ("calibration.path", "calibration.field")
"""Keys that mostly follow from another one; in a label only where nothing else differs."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ only in their target ratio: a line."""

    label: str
    """What distinguishes them from the other groups."""
    runs: tuple[ComparedRun, ...]
    """By what they removed."""

    @property
    def is_drawn(self) -> bool:
        """Whether there is a point of it."""
        return any(run.is_done for run in self.runs)


def differing_keys(runs: Iterable[ComparedRun]) -> list[str]:
    """The decisive keys in which configurations differ: ratio, method and shares first."""
    settings = [decisive(run.settings) for run in runs if run.state != "missing"]
    keys = dict.fromkeys(key for each in settings for key in each)
    differing = [key for key in keys if len({_identity(each.get(key)) for each in settings}) > 1]
    first = (RATIO, METHOD, DISTRIBUTION)
    return sorted(differing, key=lambda key: first.index(key) if key in first else len(first))


def value_text(key: str, value: Any) -> str:
    """A setting's value as a person reads it: shares as 44:52:4, a path by its last part."""
    if value is None:
        return NOTHING
    if isinstance(value, list):
        separator = ":" if key == DISTRIBUTION else ", "
        return separator.join(value_text("", each) for each in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:,}"  # noqa: PLR2004
    text = str(value)
    return Path(text).name if text.startswith("/") else text


def groups(runs: Sequence[ComparedRun]) -> list[Group]:
    """One group per configuration but for the ratio, in the order of the runs.

    A run that is not there is in the first group that its overrides do not contradict.
    """
    keys = [key for key in differing_keys(runs) if _distinguishes(key)]
    members_of: dict[tuple[Any, ...], list[ComparedRun]] = {}
    for run in runs:
        if run.state != "missing":
            members_of.setdefault(_values_of(run, keys), []).append(run)
    for run in runs:
        if run.state == "missing":
            _group_of(run, keys, members_of).append(run)
    return [
        Group(
            _label(members[0], _telling(members[0], keys, runs)), tuple(sorted(members, key=_ratio))
        )
        for members in members_of.values()
    ]


def seedless(runs: Sequence[ComparedRun]) -> list[Group]:
    """One group for each configuration but for its seeds, of every ratio one of its own.

    Each has a seed once: runs that were only measured otherwise are groups by themselves.
    """
    keys = differing_keys(runs)
    seeds = [key for key in keys if _is_seed(key)]
    rest = [key for key in keys if _distinguishes(key) and not _is_seed(key)]
    members_of: dict[tuple[Any, ...], list[ComparedRun]] = {}
    for run in runs:
        members_of.setdefault(_values_of(run, [RATIO, *rest]), []).append(run)
    found = []
    for members in members_of.values():
        is_drawn_once = len({_values_of(run, seeds) for run in members}) == len(members)
        for each in [members] if is_drawn_once else [[run] for run in members]:
            telling = [key for key in _telling(each[0], rest, runs) if not _is_seed(key)]
            found.append(Group(_label(each[0], telling), tuple(each)))
    return found


def _values_of(run: ComparedRun, keys: Iterable[str]) -> tuple[Any, ...]:
    return tuple(_identity(run.settings.get(key)) for key in keys)


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _telling(run: ComparedRun, keys: Sequence[str], runs: Sequence[ComparedRun]) -> list[str]:
    """Of the keys that differ those that a label needs.

    Beside its name, a method's own settings tell apart only runs of that method.
    """
    if METHOD not in keys or run.state == "missing":
        return list(keys)
    method = run.settings.get(METHOD)
    own = differing_keys(each for each in runs if each.settings.get(METHOD) == method)
    return [key for key in keys if key == METHOD or not key.startswith("prune.") or key in own]


def _distinguishes(key: str) -> bool:
    """Whether runs that differ in ``key`` are on different lines."""
    return key == OTHER_PRUNING or (key != RATIO and not key.startswith(MEASURING))


def _group_of(
    run: ComparedRun, keys: Sequence[str], members_of: dict[tuple[Any, ...], list[ComparedRun]]
) -> list[ComparedRun]:
    given = [(i, _identity(run.settings[k])) for i, k in enumerate(keys) if k in run.settings]
    for identity, members in members_of.items():
        if (given or not keys) and all(identity[place] == value for place, value in given):
            return members
    return members_of.setdefault((run.name,), [])


def _label(run: ComparedRun, keys: Sequence[str]) -> str:
    named = [key for key in keys if key not in IMPLIED] or list(keys)
    if run.state == "missing":
        return run.name
    if not named:
        shares = run.settings.get(DISTRIBUTION)
        return value_text(DISTRIBUTION, shares) if shares else str(run.settings[METHOD])
    return ", ".join(_setting(key, run) for key in named)


def _setting(key: str, run: ComparedRun) -> str:
    name = PLAIN_NAMES.get(key, key.rpartition(".")[2].replace("_", " "))
    value = value_text(key, run.settings.get(key))
    if key == "model.path":
        value = run.model_name
    return f"{name} {value}".strip()


def _ratio(run: ComparedRun) -> float:
    known = run.removed_percent if run.is_done else run.target_percent
    return float(known or 0)


def _identity(value: Any) -> Any:
    """Equal for equal settings, however they were written: 10 and 10.0 are the same."""
    if isinstance(value, list | tuple):
        return tuple(_identity(each) for each in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return repr(value)
