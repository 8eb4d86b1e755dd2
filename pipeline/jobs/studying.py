"""Studies carried through: propose, have the runs done, read them, and propose again.

What is on disk decides: the proposals are there before anything is submitted, and the outcomes
before anything new is proposed. So a process that is killed at any moment is followed by another
one that goes on, with the same command.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipeline import files
from pipeline.config.compose import compose_one, from_composed, overridden_key, override_of
from pipeline.config.schema import decisive
from pipeline.errors import ConfigError, PipelineError, StageError
from pipeline.files import Json, encode, mended
from pipeline.jobs.launching import carry_through, show
from pipeline.jobs.sweeping import compare
from pipeline.models.source import ModelSource
from pipeline.plan.preflight import Preflight
from pipeline.plan.run import Run
from pipeline.plan.sweep import (
    Sweep,
    all_of,
    in_order,
    labels,
    named,
    planned_together,
    sweep_name,
    taken,
)
from pipeline.report.compare.records import read_run
from pipeline.settings.core import Config
from pipeline.settings.flat import flat
from pipeline.store.folders import SWEEPS
from pipeline.store.leases import awaited_lease
from pipeline.store.summary import Summary
from pipeline.studies import record, study_of
from pipeline.studies.base import Ending, Study, Trial
from pipeline.studies.record import Record

if TYPE_CHECKING:
    from pipeline.distributed.ranks import Leader
    from pipeline.pruning.trajectory import Guard

COORDINATOR = "coordinator"
"""The folder with the lease of the process that conducts the studies of a sweep."""
FOUND = "found.json"
"""What came of a study that looks for a run: in the sweep's folder by label, and in the run's."""
ITS_OWN = "sweep.trial"
"""The key that a study sets in every run besides those that it proposes."""


def conduct(
    configs: Sequence[Config],
    overrides: Sequence[Sequence[str]],
    command: str,
    console: Console,
    leader: "Leader | None" = None,
) -> list[Path]:
    """Carry the studies of combinations through, to the end of their budgets, as one sweep.

    Returns the folders of the runs that were found, where studies look for one. Raises
    ``ConfigError`` with everything that is wrong, and ``StageError`` where it cannot go on.
    """
    studies = _Studies.of(configs, overrides, command, console)
    if configs[0].plan:
        studies.show()
        return []
    with awaited_lease(studies.folder / COORDINATOR, studies.tell) as guard:
        assert guard is not None
        studies.begin()
        while studies.propose(guard):
            studies.carry_out(guard, leader)
    return studies.conclude()


@dataclass(frozen=True, slots=True)
class _Conducted:
    """A study, and the launch that its runs are variations of."""

    label: str
    study: Study
    overrides: tuple[str, ...]
    settings: Mapping[str, Json]
    """What may decide a result, by dotted keys."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A trial of a study, by its label."""

    label: str
    trial: Trial


class _Studies:
    """The studies of one sweep."""

    def __init__(
        self, name: str, command: str, conducted: Sequence[_Conducted], first: Config,
        console: Console,
    ) -> None:  # fmt: skip
        self.name, self.command, self.console = name, command, console
        self._conducted = {each.label: each for each in conducted}
        self._first = first
        self._preflight = Preflight()
        self._records: dict[str, Record] = {}
        self._waits_for: str | None = None
        self._went_on = False

    @classmethod
    def of(
        cls,
        configs: Sequence[Config],
        overrides: Sequence[Sequence[str]],
        command: str,
        console: Console,
    ) -> "_Studies":
        """Check all combinations. Raises ``ConfigError`` with every problem."""
        preflight = Preflight()

        def studied(config: Config, given: Sequence[str]) -> tuple[Study, ModelSource]:
            source = preflight.check(config)
            return study_of(config, source, {overridden_key(each) for each in given}), source

        checks = [
            partial(studied, config, given)
            for config, given in zip(configs, overrides, strict=True)
        ]
        found = all_of(checks, overrides)
        (study, source), first = found[0], configs[0]
        name = first.sweep.name or sweep_name(overrides, source.name, study.name)
        conducted = [
            _Conducted(
                label or name, study, tuple(given), decisive(flat(config.model_dump(mode="json")))
            )
            for label, (study, _), given, config in zip(
                labels(overrides), found, overrides, configs, strict=True
            )
        ]
        studies = cls(name, command, conducted, first, console)
        studies._read()
        return studies

    @property
    def folder(self) -> Path:
        """The sweep's."""
        return SWEEPS / self.name

    def tell(self, holder: str) -> None:
        """Say once who conducts the study already."""
        if holder != self._waits_for:
            self._waits_for = holder
            self.console.print(f"waiting: {holder} conducts {self.name}")

    def begin(self) -> None:
        """Read again what is on disk, now that nobody else writes it."""
        self._read()
        for budget in self._budgets:
            self.console.print(budget)

    def _read(self) -> None:
        """Take over what is on disk. Raises ``ConfigError`` where it is of another study."""
        on_disk = mended(lambda: record.read(self.folder), self.console.print)
        problems = []
        for label, conducted in self._conducted.items():
            before = on_disk.get(label)
            if before and (problem := _differs(conducted, before)):
                problems.append(problem.format(name=self.name))
        if problems:
            raise ConfigError(problems)
        fresh = {
            label: Record({**each.study.identity, **each.settings})
            for label, each in self._conducted.items()
        }
        self._records = {**fresh, **on_disk}

    def propose(self, guard: "Guard") -> bool:
        """Have every study propose what comes next, and write it; whether there is anything."""
        before, self._records = self._records, self._with_proposals()
        if self._records != before:
            guard()
            record.write(self.folder, self._records)
        for label, each in before.items():
            for then, now in zip(each.trials, self._records[label].trials, strict=False):
                if then != now:
                    self.console.print(f"trial {now.number} failed before and is done: it counts")
                    self._tell_outcome(_Place(label, now))
        return bool(self._open)

    def _with_proposals(self) -> dict[str, Record]:
        """The records, with a next generation of every study that has no open trial.

        It is proposed with the outcomes of runs that failed and were done since.
        """
        proposed = dict(self._records)
        for label, conducted in self._conducted.items():
            trials = self._records[label].trials
            if any(trial.state == "proposed" for trial in trials):
                continue
            generation = trials[-1].generation + 1 if trials else 0
            known = [_looked_at_again(conducted.study, each, generation) for each in trials]
            new = [
                Trial(number, dict(values), generation=generation)
                for number, values in enumerate(conducted.study.next(known), len(known))
            ]
            proposed[label] = replace(self._records[label], trials=(*known, *new))
        return proposed

    @property
    def _budgets(self) -> list[str]:
        """How long the studies go on, in words."""
        studies = self._conducted.items()
        return [f"{label}: {each.study.budget}" for label, each in studies if each.study.budget]

    @property
    def _open(self) -> list[_Place]:
        return _open_in(self._records, self._conducted)

    def show(self) -> None:
        """Show what the next generation would do. Nothing is written."""
        places = _open_in(self._with_proposals(), self._conducted)
        quiet = self._first.plan == "json"
        if not places:
            text = f"{self.name}: nothing is left to propose"
            self.console.print(*self._budgets, text, sep="\n")
            return
        together = _Together.of(self, places)
        for reason in together.refused.values() if not quiet else ():
            self.console.print(f"cannot be run: {reason}")
        if not together.runs:
            raise ConfigError(list(dict.fromkeys(together.refused.values())))
        show(together.sweep.runs, self.console, together.sweep)
        if not quiet:
            generation = max(place.trial.generation for place in places) + 1
            self.console.print(f"this is generation {generation}", *self._budgets, sep="\n")

    def carry_out(self, guard: "Guard", leader: "Leader | None") -> None:
        """Have all open trials done, and write what came of them.

        Raises ``StageError`` where every one failed: the same command tries them again.
        """
        places = self._open
        together = _Together.of(self, places)
        generation = max(place.trial.generation for place in places) + 1
        self.console.print(f"{self.name}: generation {generation}, {len(places)} runs")
        errors = self._carried_through(places, together, leader)
        ended = [self._ended(place, together, errors) for place in places]
        for place in ended:
            self._tell_outcome(place)
        if failed := [place.trial for place in ended if self._is_failure(place)]:
            for trial in failed:
                self.console.print(f"trial {trial.number} failed: {trial.reason}")
            if len(failed) == len(ended):
                raise StageError(
                    f"all runs of generation {generation} failed, the first of: "
                    f"{failed[0].reason}; the same command tries them again"
                )
        guard()
        self._went_on = True
        by_place = {(place.label, place.trial.number): place.trial for place in ended}
        self._records = {
            label: replace(
                each, trials=tuple(by_place.get((label, t.number), t) for t in each.trials)
            )
            for label, each in self._records.items()
        }
        record.write(self.folder, self._records)

    def _tell_outcome(self, place: _Place) -> None:
        """Say what a run gave, where the study has words for it."""
        study = self._conducted[place.label].study
        if place.trial.state == "done" and (words := study.outcome_in_words(place.trial)):
            among = f"{place.label}: " if len(self._conducted) > 1 else ""
            self.console.print(f"{among}{words}")

    def _is_failure(self, place: _Place) -> bool:
        study = self._conducted[place.label].study
        return place.trial.state == "failed" and not study.goes_on_after(place.trial)

    def _carried_through(
        self, places: Sequence[_Place], together: "_Together", leader: "Leader | None"
    ) -> dict[Path, str]:
        """What runs failed of, by their folders."""
        if not together.runs:
            return {}
        apart = {
            together.runs[key].folder.path
            for place in places
            if self._conducted[place.label].study.is_apart(place.trial.values)
            and (key := (place.label, place.trial.number)) in together.runs
        }
        return carry_through(together.sweep, self.console, leader, apart)

    def _ended(self, place: _Place, together: "_Together", errors: Mapping[Path, str]) -> _Place:
        """The trial with what came of its run."""
        trial, key = place.trial, (place.label, place.trial.number)
        if reason := together.refused.get(key):
            return replace(place, trial=replace(trial, state="failed", reason=reason))
        run = together.runs[key]
        path = run.folder.path
        trial = replace(trial, run=str(path.absolute()), gpu_hours=_gpu_hours(run))
        try:
            if path in errors:
                raise StageError(errors[path])
            outcome = self._conducted[place.label].study.outcome(read_run(path))
        except PipelineError as error:
            reason = str(error).partition("\n")[0]
            return replace(place, trial=replace(trial, state="failed", reason=reason))
        return replace(place, trial=replace(trial, state="done", outcome=outcome))

    def conclude(self) -> list[Path]:
        """Compare all runs, and say how the studies ended; the runs that were looked for.

        Raises ``StageError`` where one of them did not find what it looked for.
        """
        from pipeline.runs.session import show_places

        trials = [trial for each in self._records.values() for trial in each.trials]
        if any(trial.state == "done" for trial in trials) and not self.console.quiet:
            compare(self.folder, self._first.run.pictures, self.console)
        failed = sum(trial.state == "failed" for trial in trials)
        ended = f"{len(trials)} runs, {failed} failed"
        self.console.print(f"{self.name}: {ended}")
        endings = self._endings()
        for ending in endings.values():
            if ending.run:
                self.console.print(ending.text)
                show_places(_from_here(Path(ending.run)), self.console)
        if self._went_on:
            texts = [ending.text for ending in endings.values()]
            see = f"see: multipruner compare {shlex.quote(self.name)}"
            self._alert(trials, "; ".join([ended, *texts, see]))
        if missed := [ending.text for ending in endings.values() if ending.run is None]:
            raise StageError("; ".join(missed))
        return [Path(ending.run) for ending in endings.values() if ending.run]

    def _alert(self, trials: Sequence[Trial], text: str) -> None:
        """Tell the user that the study is done, by the last run that is."""
        paths = [trial.run for trial in trials if trial.state == "done" and trial.run]
        if self._first.tracking.alerts and paths:
            from pipeline.runs.session import alert_afterwards

            what = f"study {self.name} is done"
            alert_afterwards(Run.open(Path(paths[-1])), what, text, self.console.print)

    def _endings(self) -> dict[str, Ending]:
        """What came of the studies that look for a run, written beside them and in its folder."""
        endings = {
            label: ending
            for label, each in self._conducted.items()
            if (ending := each.study.ending(self._records[label].trials))
        }
        for ending in endings.values():
            if ending.run:
                files.replace(Path(ending.run) / FOUND, encode(ending.facts))
        if endings:
            facts = {label: ending.facts for label, ending in endings.items()}
            files.replace(self.folder / FOUND, encode(facts))
        return endings

    def composed(self, place: _Place) -> tuple[Config, tuple[str, ...]]:
        """The configuration of a trial's run, and its overrides. Raises ``ConfigError``."""
        values = {**place.trial.values, ITS_OWN: place.trial.number}
        kept = [
            given
            for given in self._conducted[place.label].overrides
            if overridden_key(given) not in values
        ]
        overrides = (*kept, *(override_of(key, value) for key, value in values.items()))
        config = from_composed(compose_one(overrides).raw)
        study = self._conducted[place.label].study
        return named(study.configured(config, place.trial.values), self.name), overrides

    def check(self, config: Config) -> ModelSource:
        """The model of a configuration. Raises ``ConfigError``."""
        return self._preflight.check(config)


@dataclass(frozen=True, slots=True)
class _Together:
    """The runs of open trials, planned as one sweep."""

    sweep: Sweep
    runs: Mapping[tuple[str, int], Run]
    """By label and number of the trial; trials that come to the same have the same run."""
    refused: Mapping[tuple[str, int], str]
    """What is wrong with the configurations of the others."""

    @classmethod
    def of(cls, studies: _Studies, places: Sequence[_Place]) -> "_Together":
        refused: dict[tuple[str, int], str] = {}
        good, configs, sources, overrides = [], [], [], []
        for place in places:
            key = (place.label, place.trial.number)
            try:
                config, given = studies.composed(place)
                source = studies.check(config)
            except ConfigError as error:
                refused[key] = error.problems[0]
                continue
            good.append(key)
            configs.append(config)
            sources.append(source)
            overrides.append(given)
        runs = planned_together(configs, sources) if configs else []
        distinct: dict[Path, Run] = {}
        folders: dict[Path, tuple[str, ...]] = {}
        for run, given, (_, number) in zip(runs, overrides, good, strict=True):
            path = run.folder.path
            if distinct.setdefault(path, run).plan.key != run.plan.key:
                raise ConfigError([taken(path, f"trial {number}")])
            folders.setdefault(path, given)
        sweep = Sweep(studies.name, studies.command, in_order(distinct.values()), folders)
        by_place = {key: distinct[run.folder.path] for key, run in zip(good, runs, strict=True)}
        return cls(sweep, by_place, refused)


def _looked_at_again(study: Study, trial: Trial, generation: int) -> Trial:
    """A trial that failed, with its outcome for this generation if its run is done by now."""
    if trial.state != "failed" or trial.run is None:
        return trial
    path = Path(trial.run)
    try:
        if not (read := read_run(path)).is_done:
            return trial
        outcome, hours = study.outcome(read), _gpu_hours(Run.open(path))
    except PipelineError:
        return trial
    return replace(
        trial, state="done", outcome=outcome, reason=None, gpu_hours=hours, counts_from=generation
    )


def _open_in(records: Mapping[str, Record], conducted: Mapping[str, _Conducted]) -> list[_Place]:
    """The proposed trials of the studies that are conducted."""
    return [
        _Place(label, trial)
        for label in conducted
        for trial in records[label].trials
        if trial.state == "proposed"
    ]


def _differs(conducted: _Conducted, before: Record) -> str | None:
    """Why a study on disk is not this one; None where it is. Has a place for the study's name."""
    proposed = {key for trial in before.trials for key in trial.values}
    ours = {**conducted.study.identity, **conducted.settings}
    for key, value in ours.items():
        if key in before.identity and before.identity[key] != value and not _sets(proposed, key):
            then = _plain(before.identity[key])
            return (
                f"{key}: is {_plain(value)} here, and the study {{name}} began with {then}; go on "
                "with what it began with, or begin another one with sweep.name=NAME"
            )
    return None


def _sets(proposed: set[str], key: str) -> bool:
    """Whether the study sets a key itself."""
    return any(key == each or key.startswith(f"{each}.") for each in proposed)


def _plain(value: Json) -> str:
    """A value for a message that is formatted again."""
    return repr(value).replace("{", "{{").replace("}", "}}")


def _from_here(path: Path) -> Path:
    """A path as it is typed in this folder, where it is inside."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _gpu_hours(run: Run) -> float:
    """What the run's stages took, by its summary."""
    summary = Summary.read(run.folder.path)
    if summary is None:
        return 0.0
    devices = {
        stage.name: run.config.cluster.of_stage(stage.resources).devices
        for stage in run.plan.stages
    }
    seconds = {name: each.seconds for name, each in summary.stages.items()}
    return round(sum(seconds[name] * devices.get(name, 1) for name in seconds) / 3600, 6)
