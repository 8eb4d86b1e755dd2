"""Stage order: the order of channels and heads, where it cannot be made again of the weights alone.

It goes with the run as ``channel_order.json``: widths in ``pruning_config.json`` count in it.
"""

from pathlib import Path

from pipeline.files import Json, encode, replace
from pipeline.models.ordering import FILE as ORDER_FILE
from pipeline.models.ordering import ChannelOrder
from pipeline.settings.core import Config
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.shared import identity
from pipeline.stages.shared.phases import stored_order_of

VERSION = 1
"""Raised by hand when another order would come out."""


def recipe(planning: Planning) -> Recipe | None:
    """What channels are ordered by, and what that is made of."""
    order = stored_order_of(planning.config)
    if order is None or not prunes(planning.config):
        return None
    made_of = {need.name: planning.key(need.name) for need in order.needs}
    model = identity.of_dense(planning.config, planning.weights)
    return {"version": VERSION, "order": order.name, "model": model, **made_of}


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``channel_order.json``, and the scores in that order."""
    from safetensors.torch import save

    from pipeline.criteria.base import Material
    from pipeline.stages.shared.material import FILE, dense_model, supplied

    order = stored_order_of(config)
    assert order
    model = dense_model(inputs)
    material = Material(inputs.live, supplied(order.needs, inputs))
    scores = {block.name: order.scores(block, material).float().cpu() for block in model.blocks}
    ordered = ChannelOrder.by(order.name, scores)
    in_order = {name: each[list(ordered.groups[name])] for name, each in scores.items()}
    replace(out_dir / ORDER_FILE, encode(ordered.to_json()))
    replace(out_dir / FILE.format("order"), save(in_order))
    return {"order": ordered.name, "digest": ordered.digest}


def order_in(folder: Path) -> ChannelOrder:
    """The order in the folder of the stage, which is finished."""
    order = ChannelOrder.read(folder / ORDER_FILE)
    assert order
    return order


STAGE = Stage("order", 4, recipe, run, needs=("statistics", "gradients"), publishes=(ORDER_FILE,))
