"""What states lose on text: one file for each state, measure and piece of text, whoever asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.files import (
    encode,
    key_of,
    publish,
    publish_sealed,
    read_sealed,
    understood,
)
from pipeline.pruning.state import PruningState
from pipeline.pruning.trajectory import read_identity


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Losses of states of one model under one measure on one piece of text."""

    folder: Path

    def read(self, state: PruningState) -> list[float] | None:
        """The loss in each window, not-a-number where it is no finite number; None: not known.

        Raises ``DamagedError``.
        """
        return read_losses(self._path(state))

    def record(
        self, state: PruningState, losses: Sequence[float], made_by: Mapping[str, Any]
    ) -> list[float]:
        """Publish losses and return what is on disk: the first writer's stand."""
        path = self._path(state)
        content = {
            "state": state.live_identity(),
            "losses": [loss if math.isfinite(loss) else None for loss in losses],
            "made_by": dict(made_by),
        }
        publish_sealed(path, content, _place(path))
        stored = read_losses(path)
        assert stored is not None
        return stored

    def _path(self, state: PruningState) -> Path:
        return self.folder / "states" / f"{key_of(state.live_identity())}.json"


@dataclass(frozen=True, slots=True)
class EvaluationStore:
    """All evaluations under one folder."""

    root: Path

    def open(self, identity: Mapping[str, Any]) -> Evaluations:
        """Those of this model, measure and text (plain JSON), new or with what is there."""
        folder = self.root / key_of(identity)
        path = folder / "identity.json"
        if not publish(path, encode(dict(identity))):
            read_identity(path)
        return Evaluations(folder)


def read_losses(path: Path) -> list[float] | None:
    """What ``Evaluations.read`` gives of a file."""
    content = read_sealed(path, _place(path), must=True)
    if content is None:
        return None
    if understood(path, lambda: key_of(content["state"])) != path.stem:
        raise DamagedError(path, "it is of another state")
    return understood(
        path, lambda: [math.nan if loss is None else float(loss) for loss in content["losses"]]
    )


def _place(path: Path) -> str:
    """A file, wherever the store is."""
    return f"{path.parents[1].name}/{path.stem}"
