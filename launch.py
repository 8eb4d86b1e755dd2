#!/usr/bin/env python3
"""python launch.py [GROUP=OPTION] [KEY=VALUE]: compose a configuration, plan it, run it."""

import errno
import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, PipelineError
from pipeline.scoring.rendezvous import over_ranks

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from pipeline.execution.run import Run

CONFIG_DIR = Path(__file__).resolve().parent / "conf"
AGAIN = "everything up to the last step is kept; to go on, type the same again:"


def main() -> int:
    """Run the command line; the exit status is 0 done, 2 wrong configuration, 1 anything else."""
    # Threads that spin while they wait slow one another down where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.umask(os.umask(0) | stat.S_IWOTH)
    command = shlex.join(["python", *sys.argv])
    outcomes: list[int] = []
    prepared: list[Run] = []
    status = report_errors(
        lambda: over_ranks(lambda: compose_and_run(command, outcomes, prepared)), command
    )
    status = max([status, *outcomes])
    if status == 0 and prepared:
        status = report_errors(lambda: hand_over(prepared), command)
    return status


def compose_and_run(command: str, outcomes: list[int], prepared: "list[Run]") -> None:
    """Have Hydra compose the command line, and run each configuration that comes of it.

    ``outcomes`` gets the exit status of each, and ``prepared`` those that are to be handed over to
    a cluster, all together. Raises ``ConfigError`` for what cannot be composed.
    """
    import hydra
    from hydra.errors import HydraException

    from pipeline.overrides import check

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of exiting with 1
    checked = check(sys.argv[1:], CONFIG_DIR)
    sys.argv[1:] = checked.arguments

    def task(raw: "DictConfig") -> None:
        outcomes.append(report_errors(lambda: run(raw, checked.problems, prepared), command))

    composed = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")
    with tempfile.TemporaryDirectory() as scratch:
        # Hydra keeps what was typed for a sweep, unchecked; nobody is to find it
        sys.argv.append(f"hydra.sweep.dir={scratch}")
        try:
            composed(task)()
        except HydraException as error:
            raise ConfigError([*checked.problems, str(error)]) from error
    if checked.problems and not outcomes:
        raise ConfigError(checked.problems)


def report_errors(work: Callable[[], None], command: str) -> int:
    """Do ``work`` and say in one line what went wrong with it; the exit status."""
    try:
        work()
    except ConfigError as error:
        print("The configuration is wrong:", *error.problems, sep="\n  ", file=sys.stderr)
        return error.exit_status
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"interrupted; {AGAIN}\n  {command}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{where}; {AGAIN}\n  {command}", file=sys.stderr)
        return 1
    return 0


def run(raw: "DictConfig", problems: list[str], prepared: "list[Run] | None" = None) -> None:
    """Validate what Hydra composed, and run it; or add to ``prepared`` what a cluster is to run.

    Raises ``PipelineError``.
    """
    from pipeline.config import from_composed

    config = from_composed(raw, problems)
    if config.cluster.offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # before they are imported

    from pipeline.execution import session
    from pipeline.execution.run import Run
    from pipeline.preflight import check
    from pipeline.progress import Quiet, Terminal

    ready = Run.prepare(config, check(config))
    if prepared is not None and (config.cluster.name != "inline" or config.plan):
        prepared.append(ready)
        return
    ready.claim()
    console = screen()
    display = (
        Terminal(console, config.prune.target_ratio) if console.is_terminal else Quiet(console)
    )
    session.run_all(ready, display, console)


def hand_over(prepared: "list[Run]") -> None:
    """Show the plan of the runs, or submit them and say what to type next."""
    from pipeline.execution import launching

    if prepared[0].config.plan:
        launching.show(prepared, screen())
    else:
        launching.launch(prepared, screen())


def screen() -> "Console":
    """Where to print."""
    from rich.console import Console

    return Console(soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
