"""Finished results on disk, found by what made them, shared by all runs that use the folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files import Json, encode, key_of, publish, read_json
from pipeline.models.loading import Digests
from pipeline.pruning.trajectory import Guard, TrajectoryStore
from pipeline.store.leases import awaited_lease


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
        self.trajectories = TrajectoryStore(root / "trajectories", awaited_lease)
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

        def tell(holder: str) -> None:
            on_wait(f"waiting: {holder} runs {stage.name}")

        with awaited_lease(folder, tell) as guard:
            assert guard is not None
            yield guard
