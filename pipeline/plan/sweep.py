"""A sweep: all combinations of ``-m`` as one plan, in which what runs share is done once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from pipeline import files
from pipeline.config.compose import Combination, from_composed, overridden_key
from pipeline.config.schema import idle
from pipeline.errors import ConfigError
from pipeline.files import encode
from pipeline.models.source import ModelSource
from pipeline.plan.plan import Plan, plan, planning_of
from pipeline.plan.run import Run, settled
from pipeline.pruning.phases import Phase
from pipeline.settings.core import Config
from pipeline.stages.probe import probe_recipe
from pipeline.stages.prune import decisions_recipe
from pipeline.stages.shared.phases import phases_of
from pipeline.stages.walk import recipe_of
from pipeline.store.folders import SWEEPS, entries_of
from pipeline.store.leases import awaited_lease
from pipeline.store.results import Store


def validated(combinations: Sequence[Combination], problems: Sequence[str]) -> list[Config]:
    """The combinations' configurations.

    A key that means something to what any of them chooses may be typed for all. Raises
    ``ConfigError`` with ``problems`` and all of theirs, each once.
    """
    typed = {overridden_key(override) for each in combinations for override in each.overrides}
    for each in combinations:
        chosen: Any = OmegaConf.to_container(each.raw)
        typed &= idle(chosen, typed).keys()
    checks = [partial(from_composed, each.raw, overrides=typed) for each in combinations]
    return all_of(checks, [each.overrides for each in combinations], problems)


T = TypeVar("T")


def all_of(
    checks: Sequence[Callable[[], T]],
    overrides: Sequence[Sequence[str]],
    problems: Sequence[str] = (),
) -> list[T]:
    """What the checks give. Raises ``ConfigError`` with every problem and where it comes up."""
    results, labels_of = [], defaultdict(list)
    for check, label in zip(checks, labels(overrides), strict=True):
        try:
            results.append(check())
        except ConfigError as error:
            for problem in error.problems:
                labels_of[problem].append(label)
    messages = [
        problem if len(where) == len(checks) else f"{problem} (in {'; '.join(where)})"
        for problem, where in labels_of.items()
    ]
    if problems or messages:
        raise ConfigError([*problems, *messages])
    return results


def labels(overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells combinations apart: those overrides that not all of them have."""
    common = set.intersection(*map(set, overrides)) if overrides else set()
    return [" ".join(o for o in each if o not in common) for each in overrides]


def varying(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """The same by key, as a person reads it: without its section where that is enough."""
    common = set.intersection(*map(set, overrides)) if overrides else set()
    values = [
        {overridden_key(o): o.partition("=")[2] for o in each if o not in common}
        for each in overrides
    ]
    keys = list(dict.fromkeys(key for each in values for key in each))
    ends = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys}
    return [{short[key]: value for key, value in each.items()} for each in values]


def reopened(paths: Sequence[Path]) -> list[Run]:
    """The runs of folders, checked as when they were launched.

    Raises ``ConfigError`` with every problem.
    """
    from pipeline.plan.preflight import Preflight  # not before: it takes a second

    preflight = Preflight()
    opened = [partial(Run.open, path, preflight.check) for path in paths]
    return all_of(opened, [(path.name,) for path in paths])


@dataclass(frozen=True)
class Sweep:
    """Runs that are planned together."""

    name: str
    command: str
    runs: tuple[Run, ...]
    """As ``in_order`` has them."""
    overrides: Mapping[Path, tuple[str, ...]]
    """By the run's folder, in the order of the combinations."""

    @classmethod
    def of(
        cls, configs: Sequence[Config], overrides: Sequence[tuple[str, ...]], command: str
    ) -> "Sweep":
        """Check and plan all combinations. Raises ``ConfigError`` with every problem."""
        from pipeline.plan.preflight import Preflight

        preflight = Preflight()
        sources = all_of([partial(preflight.check, config) for config in configs], overrides)
        name = configs[0].sweep.name or sweep_name(overrides, sources[0].name)
        runs = planned_together([named(config, name) for config in configs], sources)
        folders: dict[Path, tuple[str, ...]] = {}
        distinct: dict[Path, Run] = {}
        for run, given, label in zip(runs, overrides, labels(overrides), strict=True):
            path = run.folder.path
            if path in distinct and distinct[path].config != run.config:
                raise ConfigError([taken(path, label or "a combination")])
            folders[path], distinct[path] = given, run
        return cls(name, command, in_order(distinct.values()), folders)

    @property
    def folder(self) -> Path:
        """Where the sweep's list of runs, its summary and its comparison are."""
        return SWEEPS / self.name

    def claim(self) -> None:
        """Write the list of runs. Those of other launches stay in it, also of simultaneous ones."""
        with awaited_lease(self.folder, lambda _: None):
            self._write_list()

    def _write_list(self) -> None:
        entries = {
            str(path.absolute()): {"run": str(path.absolute()), "overrides": list(given)}
            for path, given in self.overrides.items()
        }
        earlier = {entry["run"]: entry for entry in entries_of(self.folder)}
        runs = list((earlier | entries).values())
        written = {"name": self.name, "command": self.command, "runs": runs}
        files.replace(self.folder / "sweep.json", encode(written))


def named(config: Config, name: str) -> Config:
    """A configuration of a sweep of that name."""
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"name": name})})


def planned_together(configs: Sequence[Config], sources: Sequence[ModelSource]) -> list[Run]:
    """The runs of checked configurations, planned so that they share what they can."""
    store = Store(configs[0].store_dir)
    alone = [
        plan(planning_of(settled(config, source), source, store))
        for config, source in zip(configs, sources, strict=True)
    ]
    return [
        Run.planned(plan(replace(each.planning, reach=reach)) if reach else each, store)
        for each, reach in zip(alone, reaches(alone, store), strict=True)
    ]


def in_order(runs: Iterable[Run]) -> tuple[Run, ...]:
    """In the order in which they run best: those first that go furthest."""

    def ends(run: Run) -> list[float]:
        return [phase.end_percent for phase in phases_of(run.config, run.source)]

    return tuple(sorted(runs, key=ends, reverse=True))


def taken(path: Path, label: str) -> str:
    """The message where a run would have the folder of another one."""
    return (
        f"run.name: {label} would have the folder {path} of another one; give each a name of its "
        "own, e.g. run.name='NAME-${prune.target_ratio}'"
    )


def reaches(plans: Sequence[Plan], store: Store) -> list[dict[str, float]]:
    """For each run, the dimensions that it shares with others and how far any of them goes."""
    sharing = _Sharing(plans, store, [{} for _ in plans])
    groups: dict[str, list[int]] = defaultdict(list)
    for index, alone in enumerate(plans):
        if alone.main:
            common = {**decisions_recipe(alone.planning), "probe": probe_recipe(alone.planning)}
            groups[encode(common)].append(index)
    for members in groups.values():
        sharing.descend(members, 0)
    return sharing.reaches


@dataclass(frozen=True, slots=True)
class _Sharing:
    plans: Sequence[Plan]
    """Of each run as if it were alone."""
    store: Store
    reaches: list[dict[str, float]]
    """What comes of it, by run."""

    def descend(self, members: Sequence[int], depth: int) -> None:
        """Have those of ``members`` share a dimension that start it from the same state.

        All of them went the same way through the ``depth`` dimensions before it.
        """
        alike: dict[str, list[int]] = defaultdict(list)
        for index in members:
            phases = self._phases(index)
            if depth < len(phases):
                alike[encode(phases[depth].identity())].append(index)
        for group in alike.values():
            if len({self.plans[index].key for index in group}) == 1:
                continue
            same_end: dict[float, list[int]] = defaultdict(list)
            for index in group:
                same_end[self._phases(index)[depth].end_percent].append(index)
            phases = self._phases(group[0])
            dimension = phases[depth].dimension
            start = [0.0, *(phase.end_percent for phase in phases)][depth]
            if max(same_end) > start:
                to = self._reach(group[0], dimension, max(same_end))
                for index in group:
                    self.reaches[index][dimension] = to
            for ended in same_end.values():
                self.descend(ended, depth + 1)

    def _phases(self, index: int) -> Sequence[Phase]:
        planning = self.plans[index].planning
        return phases_of(planning.config, planning.source)

    def _reach(self, index: int, dimension: str, end: float) -> float:
        """``end``, or what a finished stage that serves as well has walked to."""
        wanted = recipe_of(self.plans[index].planning, dimension, end)
        farther = [
            recipe["to"]
            for recipe in self.store.finished_recipes(dimension)
            if recipe | {"to": end} == wanted and recipe["to"] >= end
        ]
        return min(farther, default=end)


def sweep_name(overrides: Sequence[Sequence[str]], model: str, otherwise: str = "sweep") -> str:
    """The chosen sweep's name, else the keys that vary, else ``otherwise``; and the model's."""
    chosen = [
        o.partition("=")[2] for o in overrides[0] if o.lstrip("+").partition("=")[0] == "sweep"
    ]
    varying = dict.fromkeys(
        part.partition("=")[0].rpartition(".")[2]
        for label in labels(overrides)
        for part in label.split(" ")
        if "=" in part
    )
    parts = [*(chosen or varying or [otherwise]), model]
    return "-".join("".join(c if c.isalnum() or c in "._-" else "-" for c in p) for p in parts)
