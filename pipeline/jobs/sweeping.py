"""A sweep in this process: a line for every run, and at the end the comparison of all."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline import files
from pipeline.errors import LeaseLostError, PipelineError, StageError
from pipeline.files import Json, encode, mended
from pipeline.plan.run import Run
from pipeline.plan.sweep import Sweep, varying
from pipeline.store.summary import Summary

TAKEN_OVER = (
    "ratio_percent", "ppl", "evaluation", "candidates_scored", "passes", "steps_computed",
)  # fmt: skip
"""What a sweep's summary takes of its runs' summaries."""


def run_here(sweep: Sweep, run_one: Callable[[Run], str], console: Console) -> None:
    """Run all runs, compare them, and sum up. Raises ``StageError`` where one failed."""
    errors = run_each(sweep, run_one, console)
    summary = _summary(sweep, errors)
    files.replace(sweep.folder / "summary.json", encode(summary))
    console.rule(characters="-")
    if summary["done"] and not console.quiet:
        compare(sweep.folder, formats_of(sweep.runs), console)
    console.print(
        f"{summary['done']} of {len(sweep.runs)} runs done, "
        f"{summary['candidates_scored']:,} candidates scored: {sweep.folder / 'summary.json'}"
    )
    if errors:
        raise StageError(
            f"{len(errors)} of {len(sweep.runs)} runs failed; the others are complete, and "
            "the same command tries these again"
        )


def run_each(sweep: Sweep, run_one: Callable[[Run], str], console: Console) -> dict[Path, str]:
    """Run all runs, one after the other; one that fails does not stop the others.

    ``run_one`` gives what came of a run, in a line. Returns what runs failed of, by their folders.
    """
    mended(sweep.claim, lambda text: console.print(f"warning: {text}", markup=False))
    errors: dict[Path, str] = {}
    given = [sweep.overrides[run.folder.path] for run in sweep.runs]
    for number, (run, values) in enumerate(zip(sweep.runs, varying(given), strict=True), 1):
        name = ", ".join(f"{key} {value}" for key, value in values.items())
        start = f"{number} of {len(sweep.runs)}: {name or run.folder.path.name}"
        if console.is_terminal:
            console.rule(start, align="left", characters="-")
        try:
            console.print(f"{start}: {run_one(run)}")
        except (LeaseLostError, OSError):
            raise
        except PipelineError as error:
            errors[run.folder.path] = str(error)
            console.print(f"{start}: error: {error}")
        except Exception as error:  # noqa: BLE001 - a defect in one run is no reason to lose others
            errors[run.folder.path] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
    return errors


def compare(folder: Path, formats: Iterable[str], console: Console) -> None:
    """Draw and show all runs of a sweep's folder, those of earlier launches too."""
    from pipeline.jobs.comparing import gather, show
    from pipeline.report.output import write_comparison

    comparison, folder = gather([str(folder)], None)
    show(comparison, console, write_comparison(comparison, folder, tuple(formats)))


def formats_of(runs: Iterable[Run]) -> list[str]:
    """Of the pictures that runs have."""
    return list(dict.fromkeys(kind for run in runs for kind in run.config.run.pictures))


def _summary(sweep: Sweep, errors: Mapping[Path, str]) -> dict[str, Any]:
    """What this invocation did for the runs of the sweep."""
    runs: list[Json] = []
    for path, given in sweep.overrides.items():
        summary, error = Summary.read(path), errors.get(path)
        runs.append({
            "run": str(path.absolute()),
            "overrides": list(given),
            "status": "failed" if error else summary and summary.status,
            "error": error,
            **dict.fromkeys(TAKEN_OVER),
            **(summary.model_dump(mode="json", include=set(TAKEN_OVER)) if summary else {}),
        })  # fmt: skip
    return {
        "name": sweep.name,
        "done": len(runs) - len(errors),
        "failed": len(errors),
        "candidates_scored": sum(run["candidates_scored"] or 0 for run in runs),
        "passes": sum(run["passes"] or 0 for run in runs),
        "runs": runs,
    }
