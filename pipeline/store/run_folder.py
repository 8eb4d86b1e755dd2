"""A run's folder: what a person looks at. All of it can be written again from the store."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from pipeline.errors import ConfigError, LeaseLostError, StageError
from pipeline.files import encode, publish, read_json, replace
from pipeline.measure.record import Record
from pipeline.pruning.records import StepRecord, to_jsonl
from pipeline.settings.core import Config
from pipeline.settings.flat import flat
from pipeline.stages.base import PlannedStage
from pipeline.store.folders import RUNS
from pipeline.tracking.wandb_session import new_run_id

CANCELLED = "cancelled.json"
"""The file that says that the user wants nothing more of a run; a launch takes it away."""
MEASURED = "measured"
"""Folder of what was measured of the pruned model: STAGE/KEY/FILE, one for each setting."""
KEY_CHARACTERS = 12
CLAIM = ("run.json", "config.yaml", "stages.json", "launch.json")
"""What ``RunFolder.claim`` writes, in this order."""


class RunFolder:
    """The files of one run. Belongs to the first configuration that claimed it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim: dict[str, str] = {}
        self._was_deleted = False

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
            if theirs.get(key) != value and config.decides(key)
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

    def watch(self) -> None:
        """Take note of what the folder was claimed with, so that a deletion is noticed from now on.

        Raises ``StageError`` where it is gone already.
        """
        if self._claim:
            self.restore()
        try:
            self._claim = {name: (self.path / name).read_text(encoding="utf-8") for name in CLAIM}
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StageError(
                f"{error.filename} was deleted; launch the run again, its steps are kept"
            ) from None
        self._was_deleted = False

    def restore(self) -> None:
        """Write again what the folder was claimed with, where it was deleted.

        Raises ``LeaseLostError`` where another run has it now.
        """
        if not self._claim:
            return
        try:
            owner = (self.path / "run.json").read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            owner = None
        if owner == self._claim["run.json"]:
            return
        self._was_deleted = True
        if owner is None:
            if publish(self.path / "run.json", self._claim["run.json"]):
                for name in CLAIM[1:]:
                    replace(self.path / name, self._claim[name])
        elif json.loads(owner)["key"] != json.loads(self._claim["run.json"])["key"]:
            raise LeaseLostError(
                f"{self.path} was deleted and belongs to another run now; this one stops, its "
                "steps are kept"
            )

    @property
    def was_deleted(self) -> bool:
        """Whether somebody has deleted the folder since ``watch``."""
        self.restore()
        return self._was_deleted

    @property
    def tracking_id(self) -> str:
        """The run's id in W&B."""
        identifier: str = read_json(self.path / "run.json")["tracking_id"]
        return identifier

    def write_steps(self, steps: Sequence[StepRecord], records: Mapping[int, Record]) -> None:
        """Write ``steps.jsonl``: what was decided, joined with what was measured."""
        self.restore()
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

    def take(self, planned: PlannedStage, stage_folder: Path) -> None:
        """Copy what a finished stage publishes, and keep what stands beside other settings'.

        Raises ``StageError`` where a file is not there.
        """
        kept = self.path / MEASURED / planned.name / planned.key[:KEY_CHARACTERS]
        copies = [(name, self.path / name) for name in planned.stage.publishes]
        for name, copy in copies + [(name, kept / name) for name in planned.stage.keeps]:
            try:
                text = (stage_folder / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                raise StageError(
                    f"{stage_folder} lacks {name}, which its stage publishes"
                ) from None
            copy.parent.mkdir(parents=True, exist_ok=True)
            replace(copy, text)

    def kept(self, name: str) -> list[Path]:
        """Files of a name that stages kept, each of other settings; the last one taken first."""
        return kept_files(self.path, name)


def kept_files(folder: Path, name: str) -> list[Path]:
    """As ``RunFolder.kept``, for a run's folder."""
    found = folder.glob(f"{MEASURED}/*/*/{name}")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _default_name(config: Config, key: str, model_name: str) -> str:
    return f"{model_name}-{config.prune.target_ratio:g}pct-{key[:8]}"
