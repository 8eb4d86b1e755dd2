"""The dimensions that a run is pruned in: their order, their ends, their group sizes."""

from pipeline.pruning.greedy import thresholds
from pipeline.pruning.state import Dimension
from pipeline.settings.core import Config


def ends_of(config: Config) -> dict[Dimension, float]:
    """The removed percentage at which each dimension of a run ends, in the run's order."""
    prune = config.prune
    return thresholds(prune.target_ratio, prune.distribution, prune.order)


def group_size_of(config: Config, dimension: Dimension) -> int | None:
    """Channels removed at a time; None for blocks."""
    prune = config.prune
    sizes = {"mlp_channels": prune.mlp_group_size, "heads": prune.attn_group_size}
    return sizes.get(dimension)
