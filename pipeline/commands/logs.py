"""multipruner logs: what a run's jobs printed."""

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.commands.base import RUN, Command, run_folder
from pipeline.errors import ConfigError
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
    names = [status.stage for status in of_run(run)]
    if stage is not None and stage not in names:
        raise ConfigError([f"stage: this run has no {stage}; allowed is one of {', '.join(names)}"])
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


COMMAND = Command("logs", "what a run's jobs printed", _arguments, _run)
