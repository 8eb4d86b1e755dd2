"""The parts of a run: one dimension after the other, each down to its share of the target."""

from dataclasses import dataclass
from typing import Any

from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS, HEADS, MLP_CHANNELS, Candidate, Unit

STANDARD = {"blocks": BLOCKS, "mlp_channels": MLP_CHANNELS, "heads": HEADS}
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
    group_size: int | None = None
    """Channels removed at a time; None where blocks go as a whole."""
    windows: str = "block"
    """The calibration windows that it is scored on: block, or width, of which there are fewer."""

    def candidates(self, state: PruningState) -> list[Candidate]:
        """Everything that could go next, in the order that decides ties."""
        return state.candidates(self.units, self.group_size)

    def identity(self) -> dict[str, Any]:
        """What decides its candidates."""
        identity: dict[str, Any] = {"dimension": self.dimension, "group_size": self.group_size}
        if STANDARD.get(self.dimension) != self.units:
            identity["units"] = [unit.name for unit in self.units]
        return identity
