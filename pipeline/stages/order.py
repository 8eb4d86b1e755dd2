"""Stage order: the order of channels and heads, where it cannot be made again of the weights alone.

It goes with the run as ``channel_order.json``: widths in ``pruning_config.json`` count in it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import Json, encode, replace
from pipeline.methods import method_of
from pipeline.models.ordering import FILE as ORDER_FILE
from pipeline.models.ordering import ChannelOrder
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import stored_order_of

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource

VERSION = 1
"""Raised by hand when another order would come out."""


def recipe(planning: Planning) -> Recipe | None:
    """What channels are ordered by, and what that is made of."""
    order = stored_order_of(planning.config)
    if order is None or not prunes(planning.config):
        return None
    made_of = {need.name: planning.key(need.name) for need in order.needs}
    model = identity.of_dense(planning.config, planning.weights)
    means = {"means": True} if _makes_up(planning.config, planning.source) else {}
    return {"version": VERSION, "order": order.name, "model": model, **made_of, **means}


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``channel_order.json``, and the scores in that order."""
    from safetensors.torch import save

    from pipeline.criteria.base import STATISTICS, Material
    from pipeline.stages.shared.material import FILE, dense_model, supplied

    order = stored_order_of(config)
    assert order
    model = dense_model(inputs)
    material = Material(inputs.live, supplied(order.needs, inputs))
    ordered_blocks = [each for each in model.blocks if order.of_experts or not each.is_mixture]
    scores = {block.name: order.scores(block, material).float().cpu() for block in ordered_blocks}
    means = None
    if _makes_up(config, inputs.source):
        statistics = material.of(STATISTICS)
        means = {block.name: statistics.of(block.name, "mean") for block in ordered_blocks}
    ordered = ChannelOrder.by(order.name, scores, means)
    in_order = {name: each[list(ordered.groups[name])] for name, each in scores.items()}
    replace(out_dir / ORDER_FILE, encode(ordered.to_json()))
    replace(out_dir / FILE.format("order"), save(in_order))
    return {"order": ordered.name, "digest": ordered.digest}


def _makes_up(config: Config, source: "ModelSource") -> bool:
    return method_of(config.prune).makes_up(config.prune, source)


def order_in(folder: Path) -> ChannelOrder:
    """The order in the folder of the stage, which is finished."""
    order = ChannelOrder.read(folder / ORDER_FILE)
    assert order
    return order


STAGE = Stage("order", 4, recipe, run, needs=("statistics", "gradients"), publishes=(ORDER_FILE,))
