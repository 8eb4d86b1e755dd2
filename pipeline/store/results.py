"""Finished results on disk, found by what made them, shared by all runs that use the folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.files import Json, encode, publish, read_json
from pipeline.pruning.trajectory import Guard, TrajectoryStore
from pipeline.stages.base import PlannedStage
from pipeline.store.digests import Digests
from pipeline.store.leases import awaited_lease


class Store:
    """The folder of shared results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trajectories = TrajectoryStore(root / "trajectories", awaited_lease)
        self.records = root / "records"
        self.digests = Digests(root / "digests")

    def folder(self, stage: PlannedStage) -> Path:
        """Where a stage's files are, finished or not."""
        return self.root / "stages" / stage.name / stage.key

    def finished(self, stage: PlannedStage) -> Json | None:
        """The result of a finished stage, else None. Only the success marker counts."""
        try:
            return read_json(self.folder(stage) / "done.json")
        except FileNotFoundError:
            return None

    def finished_recipes(self, name: str) -> Iterator[Json]:
        """Recipes of the finished stages of a name."""
        for done in sorted((self.root / "stages" / name).glob("*/done.json")):
            yield read_json(done.parent / "recipe.json")

    def commit(self, stage: PlannedStage, result: Json, guard: Guard) -> Json:
        """Mark a stage as finished, and return the result that counts: the first one."""
        guard()
        publish(self.folder(stage) / "done.json", encode(result))
        return self.finished(stage)

    @contextmanager
    def writer(self, stage: PlannedStage, on_wait: Callable[[str], None]) -> Iterator[Guard]:
        """Become the one process that runs a stage, after waiting for another one that does."""
        folder = self.folder(stage)
        publish(folder / "recipe.json", encode(stage.recipe))

        def tell(holder: str) -> None:
            on_wait(f"waiting: {holder} runs {stage.name}")

        with awaited_lease(folder, tell) as guard:
            assert guard is not None
            yield guard
