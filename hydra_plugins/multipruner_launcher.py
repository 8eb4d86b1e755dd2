"""Hydra's sweeper and launcher: they run nothing, and hand every combination to ``launch.py``.

Hydra finds them because they are in this folder. Nothing is submitted before all of the
combinations are composed, so that they can be one plan.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class PlanLauncherConf:
    """What ``hydra/launcher=plan`` means."""

    _target_: str = "hydra_plugins.multipruner_launcher.PlanLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="plan", node=PlanLauncherConf)


@dataclass
class PlanSweeperConf(BasicSweeperConf):
    """What ``hydra/sweeper=plan`` means."""

    _target_: str = "hydra_plugins.multipruner_launcher.PlanSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="plan", node=PlanSweeperConf)
DEFAULT_MOST = 500
MOST_COUNTED = 1_000_000
"""Values of one key; more are not counted."""


class PlanSweeper(BasicSweeper):
    """Counts the combinations before any of them is composed, which takes a while for each."""

    def sweep(self, arguments: list[str]) -> Any:
        """Have all combinations composed. Raises ``HydraException`` where they are too many."""
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        count = combinations(parser.parse_overrides([*self._parse_config(), *arguments]))
        given = OmegaConf.select(self.config, "sweep.most")
        most = given if type(given) is int else DEFAULT_MOST
        if count > most:
            raise HydraException(
                f"sweep.most: these are {count:,} combinations, and allowed are {most:,}; sweep "
                f"fewer values, or plan all of them with sweep.most={count}"
            )
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the launcher composes each of them, in this process."""


def combinations(overrides: Sequence[Override]) -> int:
    """How many combinations overrides have; of a key that comes twice the last counts."""
    counts = {
        override.get_key_element(): sum(
            1 for _ in islice(override.sweep_string_iterator(), MOST_COUNTED)
        )
        for override in overrides
        if override.is_discrete_sweep()
    }
    return math.prod(counts.values())


class PlanLauncher(Launcher):
    """Calls the task function with each combination's configuration, and writes nothing."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take over what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002
    ) -> list[JobReturn]:
        """Compose the combinations, one after the other."""
        setup_globals()
        return [self._composed(list(overrides)) for overrides in job_overrides]

    def _composed(self, overrides: list[str]) -> JobReturn:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        HydraConfig.instance().set_config(config)
        task_config: Any = copy.deepcopy(config)
        with open_dict(task_config):
            del task_config["hydra"]
        done = JobReturn(overrides=overrides, cfg=task_config, status=JobStatus.COMPLETED)
        done.return_value = self.task_function(task_config)
        return done
