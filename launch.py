#!/usr/bin/env python3
"""python launch.py [-m] [GROUP=OPTION] [KEY=VALUE]: compose a configuration, plan it, run it."""

import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

if not all(map(find_spec, ("hydra", "pydantic"))):
    sys.exit(
        f"error: {sys.executable} does not have the packages that this needs. Once, type: "
        "make install; then in every shell: . .venv/bin/activate"
    )

from pipeline import program
from pipeline.commands.reporting import report_errors
from pipeline.distributed.start import over_ranks
from pipeline.errors import ConfigError
from pipeline.executors import announce_job, ranks

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pipeline.config.compose import Combination
    from pipeline.distributed.ranks import Leader


def main() -> int:
    """Run the command line; the exit status is 0 done, 2 wrong configuration, 1 anything else."""
    # Threads that spin while they wait slow one another down where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    program.begin()
    command = shlex.join(["python", *sys.argv])
    announce_job(os.environ)
    work = partial(compose_and_run, command)
    return report_errors(lambda: over_ranks(work, ranks(os.environ)), command)


def compose_and_run(command: str, leader: "Leader | None" = None) -> None:
    """Have Hydra compose the command line, and run what comes of it. Raises ``PipelineError``.

    ``leader`` has the ranks that share the scoring.
    """
    from pipeline.config.compose import compose_command
    from pipeline.config.overrides import check

    if {"-h", "--help"} & set(sys.argv[1:]):
        from pipeline.config.help import help_text

        sys.stdout.write(help_text())
        return
    checked = check(sys.argv[1:])
    combinations, is_sweep = compose_command(checked.arguments, checked.problems)
    if is_sweep:
        run_sweep(combinations, checked.problems, command, leader)
    elif combinations:
        run(combinations[0].raw, checked.problems, combinations[0].overrides, command, leader)
    elif checked.problems:
        raise ConfigError(checked.problems)


def run(
    raw: "DictConfig",
    problems: Sequence[str],
    overrides: Sequence[str] = (),
    command: str = "",
    leader: "Leader | None" = None,
) -> None:
    """Validate what Hydra composed, and run it or have it run. Raises ``PipelineError``."""
    from pipeline.config.compose import from_composed

    config = from_composed(raw, problems, overrides)

    # not before: they take seconds, and a wrong value is to be told at once
    from pipeline.jobs.launching import carry_out, go_offline
    from pipeline.plan.preflight import check
    from pipeline.plan.run import Run
    from pipeline.screen import screen
    from pipeline.studies import proposes

    go_offline([config])
    if proposes(config):
        from pipeline.jobs.studying import conduct

        conduct([config], [overrides], command, screen(wraps=True), leader)
        return
    carry_out([Run.prepare(config, check(config))], screen(wraps=True), leader=leader)


def run_sweep(
    combinations: "Sequence[Combination]",
    problems: Sequence[str],
    command: str,
    leader: "Leader | None" = None,
) -> None:
    """Plan all combinations as one, and run them or have them run. Raises ``PipelineError``."""
    from pipeline.jobs.launching import carry_out, go_offline
    from pipeline.plan.sweep import Sweep, validated
    from pipeline.screen import screen
    from pipeline.studies import proposes

    configs = validated(combinations, problems)
    go_offline(configs)
    if any(map(proposes, configs)):
        from pipeline.jobs.studying import conduct

        overrides = [each.overrides for each in combinations]
        conduct(configs, overrides, command, screen(wraps=True), leader)
        return
    sweep = Sweep.of(configs, [each.overrides for each in combinations], command)
    carry_out(sweep.runs, screen(wraps=True), sweep, leader)


if __name__ == "__main__":
    sys.exit(main())
