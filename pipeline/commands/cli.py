"""multipruner: what was launched, and what to do about it."""

import argparse
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ConfigError, PipelineError
from pipeline.store.folders import RUNS, runs_of, sweep_folder

ANY = "folder or name, of a run or a sweep"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 done, 2 wrong arguments, 1 anything else."""
    os.umask(os.umask(0) | stat.S_IWOTH)
    parsed = _parser().parse_args(arguments)
    try:
        parsed.command(parsed)
    except ConfigError as error:
        print("wrong:", *error.problems, sep="\n  ", file=sys.stderr)
        return error.exit_status
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multipruner", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser("status", help="how runs stand")
    status.add_argument("run", nargs="*", help=f"{ANY}; without one, all runs here")
    status.add_argument("--json", action="store_true", help="for scripts")
    status.add_argument("-f", "--follow", action="store_true", help="until nothing runs any more")
    status.set_defaults(command=_status)

    logs = commands.add_parser("logs", help="what a run's jobs printed")
    logs.add_argument("run", help="folder or name")
    logs.add_argument("stage", nargs="?", help="one stage; without it all, in their order")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the jobs end")
    logs.set_defaults(command=_logs)

    cancel = commands.add_parser("cancel", help="end a run's jobs, those included that wait")
    cancel.add_argument("run", nargs="+", help=ANY)
    cancel.set_defaults(command=_cancel)

    retry = commands.add_parser("retry", help="submit what failed, and what depended on it")
    retry.add_argument("run", help=ANY)
    retry.set_defaults(command=_retry)

    why = commands.add_parser(
        "why", help="why each stage runs, fails or is new; of two runs, in what they differ"
    )
    why.add_argument("run", nargs="+", help="folder or name")
    why.set_defaults(command=_why)

    compare = commands.add_parser(
        "compare", help="which run to take: table, page, picture and CSV of a sweep or several runs"
    )
    compare.add_argument("target", nargs="+", help=ANY)
    compare.add_argument(
        "--out", type=Path, metavar="DIR",
        help="where to write; else the sweep's folder, or outputs/comparison",
    )  # fmt: skip
    compare.set_defaults(command=_compare)

    sync = commands.add_parser("sync", help="send to W&B what its jobs could not send")
    sync.add_argument("run", nargs="*", help=f"{ANY}; else all runs")
    sync.set_defaults(command=_sync)

    prefetch = commands.add_parser(
        "prefetch", help="download what a launch with the same arguments needs, into the cache"
    )
    prefetch.add_argument("overrides", nargs="*", help="as for launch.py: GROUP=OPTION KEY=VALUE")
    prefetch.set_defaults(command=_prefetch)
    return parser


def run_folder(name: str) -> Path:
    """The folder of a run given by folder or name. Raises ``ConfigError``."""
    for path in (Path(name), RUNS / name):
        if (path / "launch.json").exists():
            return path
    known = ", ".join(path.name for path in _runs_here()[:10])
    hint = f"there are: {known}" if known else "give its folder"
    raise ConfigError([f"run: there is no run {name} here; {hint}"])


def run_folders(names: Sequence[str]) -> list[Path]:
    """The folders of runs and of all runs of sweeps. Raises ``ConfigError``."""
    folders: list[Path] = []
    for name in names:
        sweep = sweep_folder(name)
        folders += (runs_of(sweep) if sweep else []) or [run_folder(name)]
    return list(dict.fromkeys(folders))


def _runs_here() -> list[Path]:
    found = [path.parent for path in RUNS.glob("*/launch.json")]
    return sorted(found, key=lambda path: (path / "run.json").stat().st_mtime, reverse=True)


def _status(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from pipeline.commands import following as follow
    from pipeline.executors.status import of_runs, run_state

    runs = run_folders(parsed.run) or _runs_here()
    if parsed.json:
        told = []
        for run, states in zip(runs, of_runs(runs), strict=True):
            told.append({
                "run": str(run.absolute()),
                "state": run_state(states),
                "steps": follow.steps(run),
                "stages": [status.to_json() for status in states],
            })  # fmt: skip
        print(json.dumps(told, indent=1))
        return
    console = Console() if sys.stdout.isatty() else Console(width=200)
    if parsed.follow:
        follow.follow(runs, console)
    elif runs:
        console.print(follow.table_of(runs)[0])
    else:
        console.print(f"no run in {RUNS.absolute()}", soft_wrap=True)


def _logs(parsed: argparse.Namespace) -> None:
    from pipeline.commands import logs

    logs.show(run_folder(parsed.run), parsed.stage, parsed.follow)


def _cancel(parsed: argparse.Namespace) -> None:
    from pipeline.executors.cancelling import cancel

    for run in run_folders(parsed.run):
        for line in cancel(run):
            print(line)


def _retry(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from pipeline.executors import launching
    from pipeline.plan.run import Run, launched_from

    paths = [path.absolute() for path in run_folders([parsed.run])]
    with launched_from(paths[0]):
        runs = [Run.open(path) for path in paths]
        if runs[0].config.cluster.name == "inline":
            raise PipelineError("this runs in its own process: type its command again")
        launching.launch(runs, Console(soft_wrap=True))


def _why(parsed: argparse.Namespace) -> None:
    from pipeline.commands import why

    if len(parsed.run) == 1:
        lines = why.explain(run_folder(parsed.run[0]))
    else:
        lines = why.differences([run_folder(name) for name in parsed.run])
    for line in lines:
        print(line)


def _compare(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from pipeline.commands.comparing import gather
    from pipeline.report.compare.table import runs_table
    from pipeline.report.output import write_comparison

    comparison, folder = gather(parsed.target, parsed.out)
    written = write_comparison(comparison, folder)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(runs_table(comparison.name, comparison.runs))
    for answer in comparison.answers:
        console.print(
            f"{answer.question}: {answer.text}", soft_wrap=True, markup=False, emoji=False
        )
    for path in written:
        console.print(f"see: {path}", soft_wrap=True, highlight=False, markup=False, emoji=False)


def _sync(parsed: argparse.Namespace) -> None:
    from pipeline.commands import syncing

    for line in syncing.sync(run_folders(parsed.run) or _runs_here()):
        print(line, flush=True)


def _prefetch(parsed: argparse.Namespace) -> None:
    from pipeline.plan import prefetching

    for line in prefetching.prefetch(parsed.overrides):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
