"""The parts of a run: one dimension after the other, each down to its share of the target."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS, HEADS, MIXTURES, MLP_CHANNELS, Candidate, Unit

STANDARD = {"blocks": BLOCKS, "mlp_channels": MLP_CHANNELS, "heads": HEADS, "experts": MIXTURES}
"""Dimensions of several methods, whose name alone says in keys which units may go."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One dimension of a run."""

    dimension: str
    """What it is called in files."""
    units: tuple[Unit, ...]
    """What may go; those named first win ties."""
    end_percent: float
    """It goes on while less than this is removed, in percent of all parameters."""
    group_size: int | Mapping[str, int] | None = None
    """Channels or experts removed at a time, by the unit's name where units have their own; None
    where blocks go as a whole."""
    windows: str = "block"
    """The calibration windows that it is scored on: block, or width, of which there are fewer."""
    keep_first: int = 0
    """Layers at the input that lose nothing."""
    keep_last: int = 0
    """Layers at the output that lose nothing."""
    is_uniform: bool = False
    """Whether all blocks lose the same share: of the groups that could go, only those compete that
    leave the smallest share of their block gone."""

    def candidates(self, state: PruningState) -> list[Candidate]:
        """Everything that could go next, in the order that decides ties."""
        after_last = len(state.shape.layers) - self.keep_last
        candidates = [
            candidate
            for unit in self.units
            for candidate in state.candidates((unit,), self.size_of(unit))
            if self.keep_first <= candidate.layer < after_last
        ]
        if not self.is_uniform or not candidates:
            return candidates
        gone = [_share_gone(state, candidate) for candidate in candidates]
        least = min(gone)
        return [each for each, share in zip(candidates, gone, strict=True) if share == least]

    def exhausted(self, state: PruningState) -> PruningState:
        """The state after all that may go went."""
        for unit in self.units:
            size = self.size_of(unit) or 1
            for first in replace(self, units=(unit,), is_uniform=False).candidates(state):
                left = 0
                if not unit.is_whole:
                    blocks = [state.shape.block(kind, first.layer) for kind in unit.kinds]
                    (least,) = (block.least(unit.name) for block in blocks if block)
                    left = least + (first.width_after - least) % size
                state = state.without(Candidate(unit, first.layer, left))
        return state

    def identity(self) -> dict[str, Any]:
        """What decides its candidates."""
        size = self.group_size
        identity: dict[str, Any] = {
            "dimension": self.dimension,
            "group_size": dict(size) if isinstance(size, Mapping) else size,
        }
        if STANDARD.get(self.dimension) != self.units:
            identity["units"] = [unit.name for unit in self.units]
        if self.keep_first or self.keep_last:
            identity["keeps"] = [self.keep_first, self.keep_last]
        if self.is_uniform:
            identity["uniform"] = True
        return identity

    def size_of(self, unit: Unit) -> int | None:
        """Channels or experts of a unit that go at a time; None where it goes as a whole."""
        size = self.group_size
        return size.get(unit.name) if isinstance(size, Mapping) else size


def _share_gone(state: PruningState, candidate: Candidate) -> float:
    """The share of its block that is gone after a candidate, from 0 to 1; of a layer the less."""
    blocks = [state.shape.block(kind, candidate.layer) for kind in candidate.unit.kinds]
    unit = candidate.unit.name
    return min(1 - candidate.width_after / block.full(unit) for block in blocks if block)
