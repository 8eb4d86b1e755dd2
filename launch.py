#!/usr/bin/env python3
"""python launch.py [-m] [GROUP=OPTION] [KEY=VALUE]: compose a configuration, plan it, run it."""

import errno
import os
import shlex
import stat
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pipeline.distributed.start import over_ranks
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from pipeline.config.compose import Combination
    from pipeline.distributed.ranks import Leader
    from pipeline.plan.run import Run
    from pipeline.plan.sweep import Sweep

AGAIN = "everything up to the last step is kept; to go on, type the same again:"


def main() -> int:
    """Run the command line; the exit status is 0 done, 2 wrong configuration, 1 anything else."""
    # Threads that spin while they wait slow one another down where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.umask(os.umask(0) | stat.S_IWOTH)
    command = shlex.join(["python", *sys.argv])
    return report_errors(lambda: over_ranks(partial(compose_and_run, command)), command)


def compose_and_run(command: str, leader: "Leader | None") -> None:
    """Have Hydra compose the command line, and run what comes of it. Raises ``PipelineError``.

    ``leader`` has the ranks that share the scoring.
    """
    from pipeline.config.compose import compose_command
    from pipeline.config.overrides import check

    checked = check(sys.argv[1:])
    combinations, is_sweep = compose_command(checked.arguments, checked.problems)
    if is_sweep:
        run_sweep(combinations, checked.problems, command, leader)
    elif combinations:
        run(combinations[0].raw, checked.problems, leader)
    elif checked.problems:
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


def run(raw: "DictConfig", problems: list[str], leader: "Leader | None" = None) -> None:
    """Validate what Hydra composed, and run it or have it run. Raises ``PipelineError``."""
    from pipeline.config.compose import from_composed

    config = from_composed(raw, problems)
    go_offline(config.cluster.offline)

    from pipeline.plan.preflight import check
    from pipeline.plan.run import Run

    ready = Run.prepare(config, check(config))
    carry_out([ready], lambda: run_here(ready, leader))


def run_sweep(
    combinations: "list[Combination]",
    problems: list[str],
    command: str,
    leader: "Leader | None" = None,
) -> None:
    """Plan all combinations as one, and run them or have them run. Raises ``PipelineError``."""
    from pipeline.plan import sweep

    configs = sweep.validated(combinations, problems)
    go_offline(any(config.cluster.offline for config in configs))

    planned = sweep.Sweep.of(configs, [each.overrides for each in combinations], command)
    here = partial(run_here, leader=leader)
    carry_out(planned.runs, lambda: sweep.run_here(planned, here, screen()), planned)


def carry_out(
    runs: "Sequence[Run]", run_all_here: Callable[[], None], sweep: "Sweep | None" = None
) -> None:
    """Show what the runs would do, run them here, or have a cluster run them: as they say."""
    from pipeline.executors import launching

    if runs[0].config.plan:
        launching.show(runs, screen())
    elif runs[0].config.cluster.name == "inline":
        run_all_here()
    else:
        launching.launch(runs, screen(), sweep)


def go_offline(is_offline: bool) -> None:
    """Tell the hub's libraries, before they are imported."""
    if is_offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")


def run_here(ready: "Run", leader: "Leader | None") -> None:
    """Run a run in this process."""
    from pipeline.runs import session
    from pipeline.runs.display import Quiet, Terminal

    ready.claim()
    console = screen()
    display = (
        Terminal(console, ready.config.prune.target_ratio)
        if console.is_terminal
        else Quiet(console)
    )
    session.run_all(ready, display, console, leader)


def screen() -> "Console":
    """Where to print."""
    from rich.console import Console

    return Console(soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
