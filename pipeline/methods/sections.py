"""Keys that several methods have."""

from typing import Literal

from pydantic import Field

from pipeline.pruning.phases import Phase
from pipeline.pruning.units import BLOCKS, LAYERS, Unit
from pipeline.settings.core import PruneConfig

WHOLE: dict[str, tuple[Unit, ...]] = {"layers": LAYERS, "blocks": BLOCKS}
"""What ``WholeConfig.units`` may name."""


class WholeConfig(PruneConfig):
    """Whole layers, or their blocks."""

    units: Literal["layers", "blocks"] = "layers"
    """What goes in one step: a layer, or an attention or MLP alone."""

    @property
    def phase(self) -> Phase:
        """Down to the target."""
        return Phase(self.units, WHOLE[self.units], self.target_ratio)


class KeptLayersConfig(PruneConfig):
    """Layers of which nothing is removed."""

    keep_first: int = Field(ge=0)
    """Layers at the input that lose nothing."""
    keep_last: int = Field(ge=0)
    """Layers at the output that lose nothing."""

    @property
    def layers_between(self) -> Phase:
        """Whole layers between those that are kept, down to the target."""
        first, last = self.keep_first, self.keep_last
        return Phase("layers", LAYERS, self.target_ratio, keep_first=first, keep_last=last)
