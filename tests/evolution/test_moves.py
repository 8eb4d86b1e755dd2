"""Moves keep the ratio, and the way to a state leads there."""

import random

import pytest

from pipeline.evolution.base import Space
from pipeline.evolution.moves import moved
from pipeline.evolution.way import leading, way
from pipeline.pruning.shape import BLOCK_KINDS, BlockShape, LayerShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import UNITS

SPACE = Space({"attn": 0, "mlp": 0, "mlp_width": 4, "attn_width": 8})
ATTN = BlockShape(width=16, group_width=8, params=800, fixed_params=32)
MLP = BlockShape(width=24, group_width=1, params=1200, fixed_params=0)
WIDE = BlockShape(width=48, group_width=1, params=2400, fixed_params=0)
LAYERS = (*(LayerShape(ATTN, MLP),) * 4, *(LayerShape(ATTN, WIDE),) * 3, LayerShape(None, MLP))
SHAPE = ModelShape(LAYERS, total_params=20_000)


def some_state(draw: random.Random) -> PruningState:
    """By chance: a few blocks are gone, and others are narrower."""
    state = PruningState.dense(SHAPE)
    for _ in range(draw.randint(1, 14)):
        units = [("attn", 0), ("mlp", 0), ("mlp_width", 4), ("attn_width", 8)]
        name, size = draw.choice(units)
        if candidates := state.candidates((UNITS[name],), size):
            state = state.without(draw.choice(candidates))
    return state


@pytest.mark.parametrize("seed", range(30))
def test_a_move_loses_no_parameter_and_stays_within_the_model(seed: int) -> None:
    draw = random.Random(seed)
    state = some_state(draw)
    for _ in range(20):
        after = moved(state, SPACE, draw)
        if after is None:
            continue
        assert after.params == state.params
        assert after.live_identity() != state.live_identity()
        # a whole configuration of the model: whatever reads it raises otherwise
        read = PruningState.from_pruning_config(SHAPE, after.to_pruning_config())
        assert read.params == state.params
        for kind in BLOCK_KINDS:
            assert len(after.left(kind)) == len(state.left(kind))
        state = after


def test_there_is_no_move_where_nothing_went_or_layers_differ() -> None:
    dense = PruningState.dense(SHAPE)
    assert moved(dense, SPACE, random.Random(0)) is None
    last = PruningState.dense(ModelShape((LAYERS[0], LAYERS[4]), 10_000))
    (narrow,) = [c for c in last.candidates((UNITS["mlp_width"],), 4) if c.layer == 0]
    assert moved(last.without(narrow), SPACE, random.Random(0)) is None


@pytest.mark.parametrize("seed", range(30))
def test_the_way_leads_from_any_state_before_to_the_one_that_was_found(seed: int) -> None:
    draw = random.Random(seed)
    found = some_state(draw)
    state, walked = PruningState.dense(SHAPE), []
    for dimension, candidate in way(state, found, SPACE, ["heads", "blocks"]):
        allowed = state.candidates((candidate.unit,), SPACE.units[candidate.unit.name])
        assert candidate in allowed, "one group or block at a time"
        state = state.without(candidate)
        walked.append(state)
        assert dimension in ("heads", "blocks", "mlp_channels")
    assert state.live_identity() == found.live_identity()
    assert state.params == found.params
    assert leading(walked, found) == len(walked)
    other = next((c for c in state.candidates((UNITS["attn"],), 0)), None)
    if other:
        assert leading([*walked, state.without(other)], found) == len(walked)
