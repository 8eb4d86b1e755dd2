"""Finished results on disk, found by what made them, shared by all runs that use the folder.

The folder of a finished stage has, beside what the stage wrote:

- ``recipe.json``: what decides the result; the folder's name is its key;
- ``files.json``: size and digest of every file that the stage wrote;
- ``done.json``: the result, and that there is one. Written last.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.files import (
    ASIDE,
    SEAL,
    Json,
    digest_of,
    encode,
    key_of,
    publish,
    publish_sealed,
    read_object,
    read_sealed,
    replace,
    sealed,
    understood,
)
from pipeline.pruning.evaluations import EvaluationStore
from pipeline.pruning.trajectory import Guard, TrajectoryStore
from pipeline.stages.base import PlannedStage
from pipeline.store.digests import Digests
from pipeline.store.leases import awaited_lease
from pipeline.store.listing import damaged, listed
from pipeline.store.weights import KeptWeights

DONE, FILES, RECIPE, PROVENANCE = "done.json", "files.json", "recipe.json", "provenance.json"
NOT_OF_THE_RESULT = (DONE, FILES, RECIPE, PROVENANCE, "leases", "runs", "attempts")
"""What a stage's folder has beside the result."""
LARGE = 16 << 20
"""Bytes of a file whose digest is remembered on disk."""


class Store:
    """The folder of shared results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trajectories = TrajectoryStore(root / "trajectories", awaited_lease)
        self.records = root / "records"
        self.evaluations = EvaluationStore(root / "evaluations")
        self.digests = Digests(root / "digests")
        self.weights = KeptWeights(root / "weights", self.digests)

    def folder(self, stage: PlannedStage) -> Path:
        """Where a stage's files are, finished or not."""
        return self.root / "stages" / stage.name / stage.key

    def finished(self, stage: PlannedStage) -> Json | None:
        """The result of a finished stage, else None. A damaged one has to be made again."""
        try:
            return self.result(stage)
        except DamagedError:
            return None

    def result(self, stage: PlannedStage) -> Json | None:
        """The same. Raises ``DamagedError`` where a file of the result is not what was written."""
        folder = self.folder(stage)
        result, check = result_in(folder), stage.stage.check
        if result is not None and check and not (folder / FILES).exists():
            with _vouched_for_by(folder / DONE):
                understood(folder / DONE, lambda: check(folder, result))
        return result

    def finished_recipes(self, name: str) -> Iterator[Json]:
        """Recipes of the finished stages of a name; damaged ones are left out."""
        for done in sorted((self.root / "stages" / name).glob(f"*/{DONE}")):
            with suppress(DamagedError):
                yield recipe_in(done.parent)

    def begin(self, stage: PlannedStage) -> None:
        """Note what the stage is, where that is not noted."""
        folder = self.folder(stage)
        if recipe_in(folder) is None:
            publish(folder / RECIPE, encode(stage.recipe))

    def note_provenance(self, stage: PlannedStage, provenance: Json) -> None:
        """Note what makes the result of a stage."""
        path = self.folder(stage) / PROVENANCE
        replace(path, sealed(provenance, _place(path)))

    def commit(self, stage: PlannedStage, result: Json, guard: Guard) -> Json:
        """Mark a stage as finished, and return the result that counts: the first one."""
        guard()
        folder = self.folder(stage)
        vouch_for(folder)
        publish_sealed(folder / DONE, result, _place(folder / DONE))
        return self.result(stage)

    @contextmanager
    def writer(self, stage: PlannedStage, on_wait: Callable[[str], None]) -> Iterator[Guard]:
        """Become the one process that runs a stage, after waiting for another one that does."""

        def tell(holder: str) -> None:
            on_wait(f"waiting: {holder} runs {stage.name}")

        with awaited_lease(self.folder(stage), tell) as guard:
            assert guard is not None
            yield guard


def result_in(folder: Path) -> Json | None:
    """The result in the folder of a stage; None where it is not finished.

    Raises ``DamagedError`` where one of its files is not what was written. What earlier versions
    finished has no list of its files, and counts as it is.
    """
    marker, file_list = folder / DONE, folder / FILES
    unchecked = read_object(marker)
    if unchecked is None:
        return None
    with _vouched_for_by(marker):
        files = read_sealed(file_list, _place(file_list), must=True)
        if files is None and SEAL in unchecked:
            raise DamagedError(file_list, "it is missing")
    if files is None:
        return unchecked
    result = read_sealed(marker, _place(marker), must=True)
    digests = Digests(folder.parents[2] / "digests")
    for damage in damaged(folder, files["files"], lambda path: _remembered(path, digests), marker):
        raise damage
    digests.save()
    return result


def vouch_for(folder: Path) -> None:
    """List the files of a result with their digests."""
    files = {"files": _files_in(folder)}
    replace(folder / FILES, sealed(files, _place(folder / FILES)))


def damaged_files(folder: Path) -> Iterator[DamagedError]:
    """Every file of a result that is not what was written, and the list of them."""
    try:
        files = read_sealed(folder / FILES, _place(folder / FILES), must=True)
    except DamagedError as damage:
        yield damage
        return
    if files:
        yield from damaged(folder, files["files"], digest_of, folder / DONE)


def _remembered(path: Path, digests: Digests) -> str:
    """The digest of a file; of a large one the remembered, while its size and time stay."""
    return digests.of(path) if path.stat().st_size >= LARGE else digest_of(path)


def recipe_in(folder: Path) -> dict[str, Json] | None:
    """What decides the result of a stage, given by its folder; None where it was never begun."""
    path = folder / RECIPE
    recipe = read_object(path)
    if recipe is None:
        return None
    if understood(path, lambda: key_of({"stage": folder.parent.name, **recipe})) != folder.name:
        raise DamagedError(path, "its content is not what was written there")
    return recipe


def provenance_in(folder: Path) -> dict[str, Json] | None:
    """What made the result of a stage, given by its folder; None where that is not noted."""
    return read_sealed(folder / PROVENANCE, _place(folder / PROVENANCE))


def _place(path: Path) -> str:
    """A file of a stage, wherever the store is."""
    return "/".join(path.parts[-3:])


def _files_in(folder: Path) -> dict[str, Json]:
    """Size and digest of every file of a result."""
    return {
        path.relative_to(folder).as_posix(): listed(path)
        for path in sorted(folder.rglob("[!.]*"))
        if path.relative_to(folder).parts[0] not in NOT_OF_THE_RESULT
        and path.is_file()
        and path.suffix != ASIDE
    }


@contextmanager
def _vouched_for_by(marker: Path) -> Iterator[None]:
    """What is damaged voids the marker."""
    try:
        yield
    except DamagedError as damage:
        raise DamagedError(damage.path, damage.reason, voided=marker) from None
