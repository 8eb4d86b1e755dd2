"""Finished results on disk, found by what made them, shared by all runs that use the folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files import Json, encode, key_of, publish, read_json
from pipeline.models.loading import Digests
from pipeline.pruning.trajectory import Guard, TrajectoryStore
from pipeline.store.leases import holder_of, lease

POLL_S = 0.5


@dataclass(frozen=True)
class Stage:
    """One piece of work of a plan. Two configurations that need the same recipe share it."""

    name: str
    recipe: dict[str, Any]
    """Everything that decides the result, as plain JSON; inputs by their keys."""
    needs: tuple["Stage", ...] = ()

    @cached_property
    def key(self) -> str:
        """Hash of the recipe."""
        return key_of({"stage": self.name, **self.recipe})


class Store:
    """The folder of shared results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trajectories = TrajectoryStore(root / "trajectories", lease)
        self.records = root / "records"
        self.digests = Digests(root / "digests")

    def folder(self, stage: Stage) -> Path:
        """Where a stage's files are, finished or not."""
        return self.root / "stages" / stage.name / stage.key

    def finished(self, stage: Stage) -> Json | None:
        """The result of a finished stage, else None. Only the success marker counts."""
        try:
            return read_json(self.folder(stage) / "done.json")
        except FileNotFoundError:
            return None

    def commit(self, stage: Stage, result: Json, guard: Guard) -> Json:
        """Mark a stage as finished, and return the result that counts: the first one."""
        guard()
        publish(self.folder(stage) / "done.json", encode(result))
        return self.finished(stage)

    @contextmanager
    def writer(self, stage: Stage, on_wait: Callable[[str], None]) -> Iterator[Guard]:
        """Become the one process that runs a stage, after waiting for another one that does."""
        folder = self.folder(stage)
        publish(folder / "recipe.json", encode(stage.recipe))
        while True:
            with lease(folder) as guard:
                if guard is not None:
                    yield guard
                    return
            on_wait(f"waiting: {holder_of(folder)} runs {stage.name}")
            time.sleep(POLL_S)
