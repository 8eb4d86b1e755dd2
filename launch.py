#!/usr/bin/env python3
"""python launch.py [-m] [GROUP=OPTION] [KEY=VALUE]: compose a configuration, plan it, run it."""

import os
import shlex
import stat
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.commands.reporting import report_errors
from pipeline.distributed.rendezvous import over_ranks
from pipeline.errors import ConfigError
from pipeline.executors import announce_job, executor_named, ranks

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from pipeline.config.compose import Combination
    from pipeline.plan.run import Run
    from pipeline.plan.sweep import Sweep


def main() -> int:
    """Run the command line; the exit status is 0 done, 2 wrong configuration, 1 anything else."""
    # Threads that spin while they wait slow one another down where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.umask(os.umask(0) | stat.S_IWOTH)
    command = shlex.join(["python", *sys.argv])
    announce_job(os.environ)
    return report_errors(
        lambda: over_ranks(lambda: compose_and_run(command), ranks(os.environ)), command
    )


def compose_and_run(command: str) -> None:
    """Have Hydra compose the command line, and run what comes of it. Raises ``PipelineError``."""
    from pipeline.config.compose import compose_command
    from pipeline.config.overrides import check

    checked = check(sys.argv[1:])
    combinations, is_sweep = compose_command(checked.arguments, checked.problems)
    if is_sweep:
        run_sweep(combinations, checked.problems, command)
    elif combinations:
        run(combinations[0].raw, checked.problems)
    elif checked.problems:
        raise ConfigError(checked.problems)


def run(raw: "DictConfig", problems: list[str]) -> None:
    """Validate what Hydra composed, and run it or have it run. Raises ``PipelineError``."""
    from pipeline.config.compose import from_composed

    config = from_composed(raw, problems)
    go_offline(config.cluster.is_offline)

    from pipeline.plan.preflight import check
    from pipeline.plan.run import Run

    ready = Run.prepare(config, check(config))
    carry_out([ready], lambda: run_here(ready))


def run_sweep(combinations: "list[Combination]", problems: list[str], command: str) -> None:
    """Plan all combinations as one, and run them or have them run. Raises ``PipelineError``."""
    from pipeline.plan import sweep

    configs = sweep.validated(combinations, problems)
    go_offline(any(config.cluster.is_offline for config in configs))

    planned = sweep.Sweep.of(configs, [each.overrides for each in combinations], command)
    carry_out(planned.runs, lambda: sweep.run_here(planned, run_here, screen()), planned)


def carry_out(
    runs: "Sequence[Run]", run_all_here: Callable[[], None], sweep: "Sweep | None" = None
) -> None:
    """Show what the runs would do, run them here, or have a cluster run them: as they say."""
    from pipeline.jobs import launching

    if runs[0].config.plan:
        launching.show(runs, screen())
    elif executor_named(runs[0].config.cluster.name).is_here:
        run_all_here()
    else:
        launching.launch(runs, screen(), sweep)


def go_offline(is_offline: bool) -> None:
    """Tell the hub's libraries, before they are imported."""
    if is_offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")


def run_here(ready: "Run") -> None:
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
    session.run_all(ready, display, console)


def screen() -> "Console":
    """Where to print."""
    from rich.console import Console

    return Console(soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
