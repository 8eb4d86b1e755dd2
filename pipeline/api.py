"""The same from Python: launch runs, extend sweeps, open and compare what is there.

::

    import multipruner

    run = multipruner.launch("model=smollm2_135m", "prune.target_ratio=15")
    run.steps              # what was removed, a pandas table
    run.curve              # what that did to perplexity, accuracy and latency
    run.model()            # the pruned model, in memory
    multipruner.compare([run, multipruner.open_run("outputs/runs/other")])

Whatever search proposes the next run asks with ``launch`` and reads ``run.summary``; runs of one
sweep (``open_sweep(NAME).launch(...)``) share their work with those before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, StageError
from pipeline.pruning.records import StepRecord, read_steps
from pipeline.store.folders import RUNS, SWEEPS, runs_of, sweep_folder
from pipeline.store.summary import Summary

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import PreTrainedModel

    from pipeline.jobs.status import State


@dataclass(frozen=True)
class Run:
    """A run that was launched, given by its folder. Everything is read when it is asked for."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def state(self) -> "State":
        """How it stands: new, pending, running, requeued, done, failed, cancelled or unknown."""
        from pipeline.jobs.status import of_run, run_state

        return run_state(of_run(self.path))

    @property
    def summary(self) -> Summary:
        """Where it stands and what came of it. Raises ``StageError`` before there is anything."""
        summary = Summary.read(self.path)
        if summary is None:
            raise StageError(f"{self.path} has no summary yet; see: multipruner status {self.path}")
        return summary

    @property
    def steps(self) -> "DataFrame":
        """What went, a row for each step: unit, layer, width left, score, removed percent."""
        from pandas import DataFrame

        return DataFrame([_step_row(step) for step in self._records()])

    @property
    def curve(self) -> "DataFrame":
        """What removing did, a row for the dense model and for each step, by removed percent.

        Columns are ``score`` (of the step: calibration perplexity, unless the method has another
        criterion), ``params``, and of what was probed ``ppl``, ``accuracy`` (a fraction),
        ``prefill_ms``, ``decode_ms`` (of a token), ``weight_bytes``, ``peak_bytes`` and
        ``kv_cache_bytes_per_token``.
        """
        from pandas import DataFrame

        summary = self.summary
        rows = [{"ratio_percent": 0.0, "params": summary.total_params, "score": summary.dense_ppl}]
        dense = summary.measured.dense
        rows[0] |= _measured_row(dense.to_json() if dense else {})
        for step in self._records():
            point = {"ratio_percent": step.ratio_percent, "params": step.params}
            measured = step.measured.to_json() if step.measured else {}
            rows.append(point | {"score": step.decision.score} | _measured_row(measured))
        return DataFrame(rows).set_index("ratio_percent").dropna(axis="columns", how="all")

    def model(self) -> "PreTrainedModel":
        """The pruned model in memory, on the run's device: blocks are gone, weights are narrow.

        Where the run recovered it, its weights are those after that.

        It answers, generates and can be trained as any transformers model. Its ``config`` still
        describes the dense one, so it cannot be saved and loaded by transformers alone.
        """
        from pipeline.plan.run import Run as PlannedRun
        from pipeline.plan.run import launched_from
        from pipeline.runs.runner import live_model_of
        from pipeline.stages.shared.recovered import after

        with launched_from(self.path.absolute()):
            planned = PlannedRun.open(self.path.absolute())
            state, live = planned.final_state(), live_model_of(planned)
            recoveries = [each for each in planned.plan.stages if each.stage.recovers]
            planned.require(recoveries)
            done = map(planned.store.folder, recoveries)
            return live.at(after(live, live.cut(state), done)).model

    def report(self) -> Path:
        """The page of a finished run; ``report.png``, ``.svg`` and ``.pdf`` lie beside it."""
        page = self.path / "report.html"
        if not page.exists():
            raise StageError(f"{self.path} has no report yet; see: multipruner status {self.path}")
        return page

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from html import escape

        picture = self.path / "report.svg"
        drawn = picture.read_text(encoding="utf-8") if picture.exists() else ""
        return f"<p>{escape(str(self.path))}</p>{drawn[drawn.find('<svg') :]}"

    def _records(self) -> list[StepRecord]:
        path = self.path / "steps.jsonl"
        return read_steps(path) if path.exists() else []


@dataclass(frozen=True)
class Sweep:
    """Runs that are shown and compared together, and share what they can; it can be extended."""

    name: str

    @property
    def folder(self) -> Path:
        """Where its list of runs and its comparison are."""
        return SWEEPS / self.name

    @property
    def runs(self) -> tuple[Run, ...]:
        """Its runs, those launched first before the others."""
        return tuple(map(Run, runs_of(self.folder)))

    def launch(self, *overrides: str) -> Run:
        """Add a run, also while others of the sweep go on; as ``multipruner.launch``."""
        return launch(*overrides, f"sweep.name={self.name}")


@dataclass(frozen=True)
class Comparison:
    """What several runs say together."""

    table: "DataFrame"
    """A row for each run, as in ``comparison.csv``."""
    answers: tuple[str, ...]
    """Which run to take, in words."""
    page: Path
    """``comparison.png``, ``.svg``, ``.pdf`` and ``.csv`` lie beside it."""


def launch(*overrides: str) -> Run:
    """Launch one run, given as on the command line: ``launch("prune.target_ratio=15")``.

    Inline it is done when this returns. With ``cluster=local`` or ``cluster=slurm`` it is
    submitted; with ``wait=true`` it is followed until it ends. Raises ``ConfigError`` with
    everything that is wrong, and ``StageError`` where a stage cannot go on; the same call goes on
    from the last step. With ``sweep.name=NAME`` the run joins that sweep; with ``prune.until`` it
    is the one that was found. Nothing is printed: warnings are in the run's summary.
    """
    from pipeline.config.compose import compose_overrides
    from pipeline.jobs.launching import carry_out, go_offline
    from pipeline.plan.sweep import Sweep as PlannedSweep
    from pipeline.screen import screen
    from pipeline.studies import proposes

    config = compose_overrides(overrides)
    if config.plan:
        raise ConfigError(["plan: a plan is printed; type: python launch.py plan=true ..."])
    go_offline([config])
    console = screen(is_quiet=True)
    if proposes(config):
        from pipeline.jobs.studying import conduct

        given = f"multipruner.launch({', '.join(map(repr, overrides))})"
        if found := conduct([config], [overrides], given, console):
            return Run(found[0])
        raise StageError("many runs were proposed and done; multipruner.open_sweep has them all")
    if config.sweep.name:
        command = f"multipruner.open_sweep({config.sweep.name!r})"
        sweep = PlannedSweep.of([config], [overrides], command)
        carry_out(sweep.runs, console, sweep)
        return Run(sweep.runs[0].folder.path)
    from pipeline.plan.preflight import check
    from pipeline.plan.run import Run as PlannedRun

    planned = PlannedRun.prepare(config, check(config))
    carry_out([planned], console)
    return Run(planned.folder.path)


def open_run(path: str | Path) -> Run:
    """A run by its folder, or by its name below ``outputs/runs``. Raises ``ConfigError``."""
    for folder in (Path(path), RUNS / path):
        if (folder / "launch.json").exists():
            return Run(folder)
    raise ConfigError([f"run: there is no run {path} here; give its folder"])


def open_sweep(name: str) -> Sweep:
    """A sweep by its name below ``outputs/sweeps``; a new one where there is none."""
    folder = sweep_folder(name)
    return Sweep(folder.name if folder else name)


def compare(runs: Sequence[Run | Sweep | str | Path], out: str | Path | None = None) -> Comparison:
    """Compare runs and sweeps, and write the comparison's page, pictures and table.

    They go to ``out``; without it to the sweep's folder or ``outputs/comparison``. Raises
    ``ConfigError`` where a target is neither run nor sweep, and where no run is finished.
    """
    from pandas import read_csv

    from pipeline.jobs.comparing import gather
    from pipeline.report.output import COMPARISON, write_comparison

    targets = [str(_folder_of(each)) for each in runs]
    comparison, folder = gather(targets, Path(out) if out else None)
    paths = write_comparison(comparison, folder)
    written = {path.suffix: path for path in paths if path.stem == COMPARISON}
    return Comparison(
        table=read_csv(written[".csv"]),
        answers=tuple(f"{answer.question}: {answer.text}" for answer in comparison.answers),
        page=written[".html"],
    )


def _folder_of(target: Run | Sweep | str | Path) -> str | Path:
    match target:
        case Run(path=path):
            return path
        case Sweep():
            return target.folder
    return target


def _step_row(step: StepRecord) -> dict[str, Any]:
    return {
        "step": step.step,
        "dimension": step.dimension,
        **step.chosen.to_json(),
        "score": step.decision.score,
        "candidates": len(step.decision.scored),
        "ratio_percent": step.ratio_percent,
        "params": step.params,
    }


def _measured_row(measured: dict[str, Any]) -> dict[str, Any]:
    """The columns of a measurement; none of what was not measured."""
    latency, memory = measured.get("latency") or {}, measured.get("memory") or {}
    return {
        "ppl": measured.get("ppl"),
        "accuracy": measured.get("accuracy"),
        "prefill_ms": latency.get("prefill", {}).get("median_ms"),
        "decode_ms": latency.get("decode", {}).get("median_ms"),
        "weight_bytes": memory.get("weights"),
        "peak_bytes": memory.get("peak"),
        "kv_cache_bytes_per_token": memory.get("kv_cache_per_token"),
    }
