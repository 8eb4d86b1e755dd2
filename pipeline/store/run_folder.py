"""A run's folder: what a person looks at. All of it can be written again from the store."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from pipeline.errors import ConfigError, StageError
from pipeline.files import encode, publish, read_json, replace
from pipeline.measure.record import Record
from pipeline.pruning.records import StepRecord, to_jsonl
from pipeline.settings.core import Config
from pipeline.settings.flat import EXECUTION_KEYS, flat
from pipeline.stages.base import PlannedStage
from pipeline.store.folders import RUNS
from pipeline.tracking.wandb_session import new_run_id

CANCELLED = "cancelled.json"
"""The file that says that the user wants nothing more of a run; a launch takes it away."""


class RunFolder:
    """The files of one run. Belongs to the first configuration that claimed it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: Config, key: str, model_name: str) -> "RunFolder":
        """The folder that a configuration's run has: ``run.dir``, or one named after the run."""
        name = config.run.name or _default_name(config, key, model_name)
        return cls(Path(config.run.dir) if config.run.dir else RUNS / name)

    def check_owner(self, config: Config, key: str) -> None:
        """Raise ``ConfigError`` where the folder belongs to a run that would come out otherwise."""
        try:
            owner = read_json(self.path / "run.json")
        except FileNotFoundError:
            return
        except (ValueError, OSError):
            owner = None
        if not isinstance(owner, dict) or not isinstance(owner.get("config"), dict):
            raise ConfigError(
                [
                    f"run.dir: {self.path} holds a run.json that cannot be read, so nobody knows "
                    "whose folder it is; choose another run.name or run.dir, or take it away"
                ]
            )
        if owner.get("key") == key:
            return
        theirs = flat(owner["config"])
        ours = flat(config.model_dump(mode="json"))
        differ = [
            f"{key} is {theirs.get(key)!r} there and {value!r} here"
            for key, value in ours.items()
            if theirs.get(key) != value and not key.startswith(EXECUTION_KEYS)
        ]
        raise ConfigError(
            [
                f"run.dir: {self.path} belongs to another configuration "
                f"({'; '.join(differ) or 'its model or calibration file has changed since'}); "
                "choose another run.name or run.dir"
            ]
        )

    def claim(
        self, config: Config, key: str, stages: Sequence[PlannedStage], reach: Mapping[str, float]
    ) -> None:
        """Write the resolved configuration, the stages, and whose folder this is.

        ``key`` says what the run is about; ``reach`` how far dimensions are pruned that runs share.
        """
        settings = config.model_dump(mode="json")
        self.path.mkdir(parents=True, exist_ok=True)
        # the mirror's id is as old as the run, so that every process resumes the same one
        owner = {"key": key, "tracking_id": new_run_id(), "config": settings}
        publish(self.path / "run.json", encode(owner))
        self.check_owner(config, key)
        text = "# The resolved configuration of this run.\n" + OmegaConf.to_yaml(settings)
        replace(self.path / "config.yaml", text)
        replace(self.path / "stages.json", encode({stage.name: stage.key for stage in stages}))
        launch = {
            "folder": str(Path.cwd()),
            "store": str(config.store_dir),
            "needs": {s.name: [needed.name for needed in s.needs] for s in stages},
            "reach": dict(reach),
        }
        replace(self.path / "launch.json", encode(launch))
        (self.path / CANCELLED).unlink(missing_ok=True)

    @property
    def tracking_id(self) -> str:
        """The run's id in W&B."""
        identifier: str = read_json(self.path / "run.json")["tracking_id"]
        return identifier

    def write_steps(self, steps: Sequence[StepRecord], records: Mapping[int, Record]) -> None:
        """Write ``steps.jsonl``: what was decided, joined with what was measured."""
        lines = [
            dataclasses.replace(
                step,
                source=None,
                measured=records[step.step].of_step() if step.step in records else None,
            )
            for step in steps
        ]
        replace(self.path / "steps.jsonl", to_jsonl(lines))

    def steps_written(self) -> int:
        """Lines of ``steps.jsonl``: an interrupted restart may know of fewer."""
        try:
            text = (self.path / "steps.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return 0
        return len(text.splitlines())

    def copy_from(self, stage_folder: Path, *names: str) -> None:
        """Take over files of a finished stage. Raises ``StageError`` where one is not there."""
        for name in names:
            try:
                replace(self.path / name, (stage_folder / name).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise StageError(
                    f"{stage_folder} lacks {name}, which its stage publishes"
                ) from None


def _default_name(config: Config, key: str, model_name: str) -> str:
    return f"{model_name}-{config.prune.target_ratio:g}pct-{key[:8]}"
