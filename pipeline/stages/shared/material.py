"""What criteria and orders ask for, from the stages that made it."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pipeline.criteria.base import CHANNEL_SCORES, GRADIENTS, STATISTICS, Need
from pipeline.models.tensors import read_tensors
from pipeline.models.variants import Variant
from pipeline.pruning.state import PruningState
from pipeline.statistics.activations import Statistics
from pipeline.statistics.gradients import Gradients

if TYPE_CHECKING:
    from pipeline.models.prunable import PrunableModel
    from pipeline.stages.base import Inputs

FILE = "{}.safetensors"
"""What a stage calls its numbers."""
OF_STAGES: dict[Need[Any], tuple[str, Callable[..., Any]]] = {
    STATISTICS: ("statistics", Statistics),
    GRADIENTS: ("gradients", Gradients),
    CHANNEL_SCORES: ("order", dict),
}
"""The stage that makes it, and what its file is read as."""


def supplied(needs: Iterable[Need[Any]], inputs: "Inputs") -> dict[Need[Any], Any]:
    """Of what is asked for all that stages have made, but for windows."""
    return {
        need: kind(read_tensors(inputs.results[stage] / FILE.format(stage)))
        for need, (stage, kind) in OF_STAGES.items()
        if need in needs
    }


def dense_model(inputs: "Inputs") -> "PrunableModel":
    """The dense model as its files have it, its channels in their own order."""
    dense = PruningState.dense(inputs.source.shape)
    return inputs.live.at(Variant.cut(dense, inputs.live.lineage[:1]))
