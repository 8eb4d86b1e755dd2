"""A run's folder: what a person looks at. All of it can be written again from the store."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.errors import ConfigError, DamagedError, LeaseLostError, StageError
from pipeline.files import (
    content_of,
    encode,
    publish,
    publish_sealed,
    read_object,
    read_sealed,
    replace,
    sealed,
    understood,
)
from pipeline.measure.record import Record
from pipeline.pruning.records import StepRecord, read_steps, to_jsonl
from pipeline.settings.core import Config
from pipeline.settings.flat import flat
from pipeline.stages.base import PlannedStage
from pipeline.store.folders import LAUNCH, RUNS, launch_of
from pipeline.store.results import FILES, damaged_files, vouch_for
from pipeline.tracking.wandb_session import new_run_id

OWNER, CONFIG = "run.json", "config.yaml"
ELSEWHERE = "choose another run.name or run.dir"
TRACKING = "tracking"
"""The folder with the lease of the process that tracks the run, or does all of it."""
FOLDERS = (TRACKING, f"{TRACKING}/leases", "wandb", "export", "measured")
SUFFIXES = (".json", ".jsonl", ".yaml", ".html", ".png", ".svg", ".pdf")
"""What a run's folder may have."""
CANCELLED = "cancelled.json"
"""The file that says that the user wants nothing more of a run; a launch takes it away."""
MEASURED = "measured"
"""Folder of what was measured of the pruned model: STAGE/KEY/FILE, one for each setting."""
KEY_CHARACTERS = 12
CLAIM = (OWNER, CONFIG, "stages.json", LAUNCH)
"""What ``RunFolder.claim`` writes, in this order."""


class RunFolder:
    """The files of one run. Belongs to the first configuration that claimed it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim: dict[str, bytes] = {}
        self._was_deleted = False

    @classmethod
    def of(cls, config: Config, key: str, model_name: str) -> "RunFolder":
        """The folder that a configuration's run has: ``run.dir``, or one named after the run."""
        if config.run.dir:
            return cls(Path(config.run.dir))
        if config.run.name:
            return cls(RUNS / config.run.name)
        ratio = f"{config.prune.target_ratio:g}pct-{key[:8]}"
        without_method = RUNS / f"{model_name}-{ratio}"  # as earlier versions named it
        if without_method.exists():
            return cls(without_method)
        return cls(RUNS / f"{model_name}-{config.prune.method}-{ratio}")

    def check_owner(self, config: Config, key: str) -> None:
        """Raise ``ConfigError`` where the folder belongs to a run that would come out otherwise."""
        try:
            owner = self.owner()
        except DamagedError as damage:
            if self._is_ours_by_its_stages(key):
                return  # ``claim`` sets it aside
            raise ConfigError(
                [
                    f"run.dir: {self.path} belongs to another configuration, as far as can be "
                    f"told: {damage}; {ELSEWHERE}"
                ]
            ) from None
        if owner is None or owner["key"] == key:
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
                f"{ELSEWHERE}"
            ]
        )

    def owner(self) -> dict[str, Any] | None:
        """What the folder says of whose it is; None where it is nobody's.

        Raises ``DamagedError``.
        """
        path = self.path / OWNER
        owner = read_sealed(path, OWNER)
        if owner is None:
            return None
        if not isinstance(owner.get("key"), str) or not isinstance(owner.get("config"), dict):
            raise DamagedError(path, "it has no key or no configuration")
        return owner

    def _is_ours_by_its_stages(self, key: str) -> bool:
        stages: dict[str, Any] = {}
        with suppress(DamagedError):
            stages |= read_object(self.path / "stages.json") or {}
        with suppress(DamagedError):
            stages |= launch_of(self.path).keys
        return key in stages.values()

    def claim(
        self, config: Config, key: str, stages: Sequence[PlannedStage], reach: Mapping[str, float]
    ) -> None:
        """Write the resolved configuration, the stages, and whose folder this is.

        ``key`` says what the run is about; ``reach`` how far dimensions are pruned that runs share.
        """
        settings = config.model_dump(mode="json")
        self.check_files()
        # the mirror's id is as old as the run, so that every process resumes the same one
        owner = {"key": key, "tracking_id": new_run_id(), "config": settings}
        publish_sealed(self.path / OWNER, owner, OWNER)
        self.check_owner(config, key)
        text = "# The resolved configuration of this run.\n" + OmegaConf.to_yaml(settings)
        replace(self.path / CONFIG, text)
        replace(self.path / "stages.json", encode({stage.name: stage.key for stage in stages}))
        launch = {
            "folder": str(Path.cwd()),
            "store": str(config.store_dir),
            "needs": {s.name: [needed.name for needed in s.needs] for s in stages},
            "reach": dict(reach),
            "stages": {stage.name: stage.key for stage in stages},
            "config": settings,
        }
        replace(self.path / LAUNCH, sealed(launch, LAUNCH))
        (self.path / CANCELLED).unlink(missing_ok=True)

    def watch(self) -> None:
        """Take note of what the folder was claimed with, so that a deletion is noticed from now on.

        Raises ``StageError`` where it is gone already, ``DamagedError`` where it is damaged.
        """
        if self._claim:
            self.restore()
        claim = {name: content_of(self.path / name) for name in CLAIM}
        if lacking := [name for name, content in claim.items() if content is None]:
            raise StageError(
                f"{self.path / lacking[0]} was deleted; launch the run again, its steps are kept"
            )
        self.owner()
        self._claim = {name: content for name, content in claim.items() if content is not None}
        self._was_deleted = False

    def restore(self) -> None:
        """Write again what the folder was claimed with, where it was deleted.

        Raises ``LeaseLostError`` where another run has it now.
        """
        if not self._claim:
            return
        content = content_of(self.path / OWNER)
        if content == self._claim[OWNER]:
            return
        owner = self.owner()
        self._was_deleted = True
        if owner is None:
            if publish(self.path / OWNER, self._claim[OWNER].decode()):
                for name in CLAIM[1:]:
                    replace(self.path / name, self._claim[name])
        elif owner["key"] != json.loads(self._claim[OWNER])["key"]:
            raise LeaseLostError(
                f"{self.path} was deleted and belongs to another run now; this one stops, its "
                "steps are kept"
            )

    @property
    def was_deleted(self) -> bool:
        """Whether somebody has deleted the folder since ``watch``."""
        self.restore()
        return self._was_deleted

    def check_files(self) -> None:
        """Raise ``DamagedError`` where something else is in the place of a file or folder.

        Or where what is kept is not what was written; all the rest is written anew.
        """
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.suffix in SUFFIXES and not path.is_file():
                raise DamagedError(path, "something that is no file is in its place")
        for name in FOLDERS:
            path = self.path / name
            if os.path.lexists(path) and not path.is_dir():
                raise DamagedError(path, "something that is no folder is in its place")
        for kept in kept_folders(self.path):
            check_kept(kept)

    @property
    def tracking_id(self) -> str:
        """The run's id in W&B."""
        owner = self.owner()
        if owner is None:
            raise DamagedError(self.path / OWNER, "it is missing")
        return understood(self.path / OWNER, lambda: str(owner["tracking_id"]))

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
            return len(read_steps(self.path / "steps.jsonl"))
        except (FileNotFoundError, DamagedError):
            return 0

    def take(self, planned: PlannedStage, stage_folder: Path) -> None:
        """Copy what a finished stage publishes, and keep what stands beside other settings'.

        Raises ``StageError`` where a file is not there.
        """
        for name in planned.stage.publishes:
            replace(self.path / name, _published(stage_folder / name))
        for name in planned.stage.may_publish:
            if (content := content_of(stage_folder / name)) is not None:
                replace(self.path / name, content)
        kept = self.path / MEASURED / planned.name / planned.key[:KEY_CHARACTERS]
        for name in planned.stage.keeps:
            replace(kept / name, _published(stage_folder / name))
        if planned.stage.keeps:
            vouch_for(kept)

    def kept(self, name: str) -> list[Path]:
        """Files of a name that stages kept, each of other settings; the last one taken first."""
        return kept_files(self.path, name)


def kept_files(folder: Path, name: str) -> list[Path]:
    """As ``RunFolder.kept``, for a run's folder."""
    found = folder.glob(f"{MEASURED}/*/*/{name}")
    return sorted(found, key=lambda path: path.lstat().st_mtime_ns, reverse=True)


def kept_folders(folder: Path) -> list[Path]:
    """The folders with files that stages kept in a run's folder."""
    return sorted(path for path in folder.glob(f"{MEASURED}/*/*") if path.is_dir())


def check_kept(kept: Path) -> None:
    """Raise ``DamagedError`` where a file that a stage kept is not what was written."""
    for damage in damaged_files(kept):
        raise DamagedError(damage.path, damage.reason, voided=kept / FILES)


def _published(path: Path) -> bytes:
    content = content_of(path)
    if content is None:
        raise StageError(f"{path.parent} lacks {path.name}, which its stage publishes")
    return content
