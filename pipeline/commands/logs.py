"""multipruner logs: what a run's jobs printed, or its steps where it has none."""

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.commands.base import RUN, Command, run_folder
from pipeline.errors import ConfigError, DamagedError
from pipeline.jobs.status import LIVE, StageStatus, of_run

POLL_S = 0.5
ASK_EVERY_S = 3.0


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", help=RUN)
    parser.add_argument("stage", nargs="?", help="one stage; without it all, in their order")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the jobs end")


def _run(parsed: Namespace) -> None:
    show(run_folder(parsed.run), parsed.stage, parsed.follow)


def show(run: Path, stage: str | None, follow: bool) -> None:
    """Print the logs of a run, or of one of its stages; with ``follow`` until the jobs end."""
    known = of_run(run)
    names = [status.stage for status in known]
    if stage is not None and stage not in names:
        raise ConfigError([f"stage: this run has no {stage}; allowed is one of {', '.join(names)}"])
    if all(status.attempt is None for status in known):
        _show_process(run, follow)
        return
    printed: dict[str, int] = {}
    while True:
        states = [s for s in of_run(run) if stage in (None, s.stage)]
        next_question = time.monotonic() + ASK_EVERY_S
        for status in states:
            _print_more(status, printed, titled=stage is None)
        if not follow or not any(s.state in (*LIVE, "unknown") for s in states):
            _print_errors(states)
            return
        while time.monotonic() < next_question:
            time.sleep(POLL_S)
            for status in states:
                _print_more(status, printed, titled=stage is None)


def _show_process(run: Path, follow: bool) -> None:
    """What is kept of a run without jobs: what it printed is where it was typed."""
    print(
        f"{run} has no jobs: its stages run in the process that was started for it, and what they"
    )
    print("print is in that terminal. Its steps so far:")
    printed = 0
    while True:
        states = of_run(run)
        lines = _steps(run)
        for line in lines[printed:]:
            print(line, flush=True)
        printed = max(printed, len(lines))
        if not follow or not any(status.state in LIVE for status in states):
            break
        time.sleep(ASK_EVERY_S)
    for status in states:
        print(f"{status.stage}: {status.state}" + (f": {status.reason}" if status.reason else ""))


def _steps(run: Path) -> list[str]:
    """A line for each step of a run that is on disk."""
    from pipeline.pruning.records import read_steps
    from pipeline.runs.display import step_line

    try:
        return [step_line(step) for step in read_steps(run / "steps.jsonl")]
    except (FileNotFoundError, DamagedError):
        return []


def _print_more(status: StageStatus, printed: dict[str, int], titled: bool) -> None:
    if status.log is None:
        return
    try:
        with Path(status.log).open("rb") as stream:
            stream.seek(printed.get(status.log, 0))
            more = stream.read()
    except FileNotFoundError:
        return
    if not more:
        return
    if titled and printed.get("") != hash(status.log):
        print(f"==> {status.stage} (job {status.job_id}) <==")
    printed[""] = hash(status.log)
    printed[status.log] = printed.get(status.log, 0) + len(more)
    sys.stdout.write(more.decode("utf-8", errors="replace"))
    sys.stdout.flush()


def _print_errors(states: list[StageStatus]) -> None:
    for status in states:
        if status.state not in ("done", *LIVE):
            why = f": {status.reason}" if status.reason else ""
            print(f"{status.stage}: {status.state}{why}")


COMMAND = Command("logs", "what a run's jobs printed, or its steps", _arguments, _run)
