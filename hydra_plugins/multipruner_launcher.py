"""A Hydra launcher that runs nothing: it hands every combination of ``-m`` to ``launch.py``.

Hydra finds it because it is in this folder. Nothing is submitted before all of the combinations are
composed, so that they can be one plan.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class PlanLauncherConf:
    """What ``hydra/launcher=plan`` means."""

    _target_: str = "hydra_plugins.multipruner_launcher.PlanLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="plan", node=PlanLauncherConf)


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
