"""What may go next, what is left, when a dimension ends, and which candidate a step takes."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StageError
from pipeline.files import encode
from pipeline.methods.multipruner import thresholds
from pipeline.pruning.phases import STANDARD
from pipeline.pruning.shape import BarredUnit, BlockShape, LayerShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import BLOCKS, HEADS, LAYERS, MLP_CHANNELS, UNITS, Candidate

ATTN = BlockShape(width=64, group_width=16, params=64 * 90 + 30, fixed_params=30)
MLP = BlockShape(width=48, group_width=1, params=48 * 72, fixed_params=0)
SHAPE = ModelShape.repeated(3, ATTN, MLP, total_params=60_000)
DENSE = PruningState.dense(SHAPE)

repeatable = settings(derandomize=True, database=None, deadline=None)


def candidate(unit: str, layer: int, width_after: int) -> Candidate:
    return Candidate(UNITS[unit], layer, width_after)


def after(*removals: tuple[str, int, int]) -> PruningState:
    state = DENSE
    for removal in removals:
        state = state.without(candidate(*removal))
    return state


def pieces(candidates: list[Candidate]) -> list[tuple[str, int, int]]:
    return [(c.unit.name, c.layer, c.width_after) for c in candidates]


# Candidates


def test_blocks_are_tried_attention_before_mlp_and_lower_layers_first() -> None:
    assert pieces(DENSE.candidates(BLOCKS, 0)) == [
        ("attn", 0, 0),
        ("attn", 1, 0),
        ("attn", 2, 0),
        ("mlp", 0, 0),
        ("mlp", 1, 0),
        ("mlp", 2, 0),
    ]


def test_a_block_that_is_gone_is_no_candidate() -> None:
    state = after(("attn", 2, 0), ("mlp", 0, 0), ("attn", 0, 0))
    assert pieces(state.candidates(BLOCKS, 0)) == [("attn", 1, 0), ("mlp", 1, 0), ("mlp", 2, 0)]


def test_a_narrow_block_can_still_go_as_a_whole() -> None:
    state = after(("mlp_width", 1, 8), ("attn_width", 2, 16))
    assert state.candidates(BLOCKS, 0) == DENSE.candidates(BLOCKS, 0)


def test_one_group_goes_off_the_tail_of_each_layer_in_order() -> None:
    state = after(("mlp_width", 1, 36), ("attn_width", 0, 32))
    assert pieces(state.candidates(MLP_CHANNELS, 12)) == [
        ("mlp_width", 0, 36),
        ("mlp_width", 1, 24),
        ("mlp_width", 2, 36),
    ]
    assert pieces(state.candidates(HEADS, 16)) == [
        ("attn_width", 0, 16),
        ("attn_width", 1, 48),
        ("attn_width", 2, 48),
    ]


def test_something_of_a_block_is_left() -> None:
    state = after(("mlp_width", 0, 20), ("mlp_width", 1, 21), ("attn_width", 2, 16))
    assert pieces(state.candidates(MLP_CHANNELS, 20)) == [
        ("mlp_width", 1, 1),
        ("mlp_width", 2, 28),
    ]
    assert pieces(state.candidates(HEADS, 16)) == [("attn_width", 0, 48), ("attn_width", 1, 48)]
    assert state.candidates(MLP_CHANNELS, 48) == []


def test_a_block_that_is_gone_loses_no_channels() -> None:
    state = after(("mlp", 1, 0), ("attn", 0, 0), ("attn", 2, 0))
    assert [c.layer for c in state.candidates(MLP_CHANNELS, 12)] == [0, 2]
    assert [c.layer for c in state.candidates(HEADS, 16)] == [1]


def test_a_layer_goes_with_what_is_left_of_it() -> None:
    state = after(("mlp", 1, 0), ("layer", 0, 0), ("attn_width", 2, 32))
    assert pieces(state.candidates(LAYERS, None)) == [("layer", 1, 0), ("layer", 2, 0)]
    assert state.without(candidate("layer", 2, 0)).removed_attn == (0, 2)
    last = after(("mlp", 1, 0), ("layer", 0, 0), ("layer", 1, 0))
    assert (last.removed_attn, last.removed_mlp) == ((0, 1), (1, 0))
    assert last.candidates(LAYERS, None) == [candidate("layer", 2, 0)]


@pytest.mark.parametrize("barred", ["attn", "mlp", "layer"])
def test_a_layer_stays_where_a_part_of_it_cannot_go(barred: str) -> None:
    shape = replace(SHAPE, barred=(BarredUnit(barred, "it is needed"),))
    assert PruningState.dense(shape).candidates(LAYERS, None) == []


# What is left


def test_removals_are_kept_in_their_order_and_leave_the_other_state_alone() -> None:
    state = after(("attn", 2, 0), ("mlp", 1, 0), ("attn", 0, 0), ("mlp_width", 2, 40))
    assert state.removed_attn == (2, 0)
    assert state.removed_mlp == (1,)
    assert state.mlp_widths == (48, 48, 40)
    assert state.attn_widths == (64, 64, 64)
    assert PruningState.dense(SHAPE) == DENSE


def test_a_removed_block_keeps_its_width() -> None:
    state = after(("mlp_width", 1, 40), ("mlp", 1, 0))
    assert state.mlp_widths == (48, 40, 48)
    assert state.params == SHAPE.total_params - MLP.params


def test_a_narrow_block_keeps_what_does_not_depend_on_its_width() -> None:
    assert ATTN.params_at(64) == ATTN.params
    assert ATTN.params_at(16) == 16 * 90 + 30
    assert after(("attn_width", 1, 16)).params == SHAPE.total_params - 48 * 90
    assert after(("attn_width", 1, 16), ("attn", 1, 0)).params == after(("attn", 1, 0)).params


def test_the_ratio_is_in_percent_of_all_parameters() -> None:
    assert DENSE.ratio_percent == 0
    assert after(("mlp", 0, 0)).ratio_percent == pytest.approx(48 * 72 / 60_000 * 100)


def test_the_identity_of_a_state_ignores_the_order_of_removal_and_nothing_else() -> None:
    one = after(("attn", 0, 0), ("attn", 2, 0), ("mlp", 1, 0), ("mlp_width", 0, 40))
    other = after(("mlp_width", 0, 40), ("mlp", 1, 0), ("attn", 2, 0), ("attn", 0, 0))
    assert one != other
    assert one.identity() == other.identity()
    assert json.loads(encode(one.identity())) == one.identity()
    different = [
        DENSE,
        after(("attn", 1, 0)),
        after(("mlp", 1, 0)),
        after(("attn_width", 1, 48)),
        after(("mlp_width", 1, 47)),
        after(("mlp_width", 2, 47)),
    ]
    identities = [encode(state.identity()) for state in different]
    assert len(set(identities)) == len(different)


@pytest.mark.parametrize(
    "removal", [("attn", 1, 0), ("mlp", 1, 0), ("attn_width", 1, 48), ("mlp_width", 1, 47)]
)
def test_a_state_can_become_what_removals_lead_to_and_not_go_back(
    removal: tuple[str, int, int],
) -> None:
    start = after(("attn", 0, 0), ("mlp_width", 2, 40))
    later = start.without(candidate(*removal))
    assert start.can_become(start)
    assert start.can_become(later)
    assert not later.can_become(start)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[ModelShape, random.Random]:
    """A random decoder of Llama's kind, counted from its matrices, and dice to prune it with.

    Its layers differ, and some have no attention or no MLP.
    """
    hidden, head_dim = draw(st.sampled_from([8, 24])), draw(st.sampled_from([2, 6]))
    repeats, biases = draw(st.integers(1, 3)), draw(st.booleans())
    attns = st.integers(1, 4).map(lambda heads: attention(hidden, head_dim, repeats, heads, biases))
    mlps = st.integers(5, 40).map(lambda width: BlockShape(width, 1, 3 * width * hidden, 0))
    layer = st.builds(LayerShape, st.none() | attns, st.none() | mlps)
    layers = tuple(draw(st.lists(layer, min_size=1, max_size=4)))
    outside = 100 * hidden + (2 * len(layers) + 1) * hidden
    shape = ModelShape(layers, outside + sum(each.params for each in layers))
    return shape, draw(st.randoms(use_true_random=False))


def attention(
    hidden: int, head_dim: int, repeats: int, key_value_heads: int, biases: bool
) -> BlockShape:
    query = key_value_heads * repeats * head_dim
    rows = query + 2 * key_value_heads * head_dim
    return BlockShape(
        width=query,
        group_width=repeats * head_dim,
        params=rows * (hidden + biases) + query * hidden + biases * hidden,
        fixed_params=biases * hidden,
    )


@repeatable
@given(shapes())
def test_any_walk_of_removals_counts_down_to_what_can_never_go(
    drawn: tuple[ModelShape, random.Random],
) -> None:
    shape, dice = drawn
    start = state = PruningState.dense(shape)
    groups = [layer.attn.group_width for layer in shape.layers if layer.attn]
    sizes = {"blocks": 0, "mlp_channels": 4, "heads": max(groups, default=0), "experts": 1}
    while moves := [c for d, units in STANDARD.items() for c in state.candidates(units, sizes[d])]:
        chosen = dice.choice(moves)
        following = state.without(chosen)
        assert state.params - following.params == size_of(state, chosen)
        assert following.params < state.params
        assert following.ratio_percent > state.ratio_percent
        assert state.can_become(following)
        state = following
    assert start.can_become(state)
    assert state.params == shape.params_outside_blocks
    assert sorted(state.removed_attn) == start.left("attn")
    assert sorted(state.removed_mlp) == start.left("mlp")
    assert state.left("attn") == state.left("mlp") == []


def size_of(state: PruningState, candidate: Candidate) -> int:
    """Parameters of a candidate, from its share of the channels of a whole block."""
    attention = candidate.unit.name.startswith("attn")
    layer = state.shape.layers[candidate.layer]
    block = layer.attn if attention else layer.mlp
    width = (state.attn_widths if attention else state.mlp_widths)[candidate.layer]
    shrinking = block.params - block.fixed_params
    lost, rest = divmod(shrinking * (width - candidate.width_after), block.width)
    assert rest == 0, "a channel has a whole number of parameters"
    return lost + (0 if candidate.unit.name.endswith("width") else block.fixed_params)


# Layers that differ


DIFFERENT = ModelShape(
    layers=(
        LayerShape(ATTN, MLP),
        LayerShape(None, MLP),
        LayerShape(ATTN, BlockShape(width=40, group_width=1, params=40 * 72, fixed_params=0)),
        LayerShape(ATTN, None),
    ),
    total_params=80_000,
)


def test_a_block_that_a_layer_does_not_have_is_no_candidate_and_has_no_width() -> None:
    dense = PruningState.dense(DIFFERENT)
    assert (dense.attn_widths, dense.mlp_widths) == ((64, 0, 64, 64), (48, 48, 40, 0))
    assert (dense.removed_attn, dense.removed_mlp) == ((), ())
    assert dense.params == DIFFERENT.total_params
    units = [(unit, layer) for unit, layer, _ in pieces(dense.candidates(BLOCKS, 0))]
    assert units == [("attn", 0), ("attn", 2), ("attn", 3), ("mlp", 0), ("mlp", 1), ("mlp", 2)]
    assert pieces(dense.candidates(MLP_CHANNELS, 40)) == [
        ("mlp_width", 0, 8),
        ("mlp_width", 1, 8),
    ]


def test_a_unit_that_a_model_cannot_lose_is_no_candidate() -> None:
    dense = PruningState.dense(replace(SHAPE, barred=(BarredUnit("attn_width", "for a test"),)))
    assert dense.candidates(HEADS, 16) == []
    assert dense.candidates(BLOCKS, 0) == DENSE.candidates(BLOCKS, 0)
    assert dense.candidates(MLP_CHANNELS, 12) == DENSE.candidates(MLP_CHANNELS, 12)


@repeatable
@given(shapes())
def test_a_shape_survives_its_json(drawn: tuple[ModelShape, random.Random]) -> None:
    shape = replace(drawn[0], barred=(BarredUnit("mlp", "for a test"),))
    assert ModelShape.from_json(json.loads(encode(shape.to_json()))) == shape


def test_equal_neighbouring_layers_stand_once_in_json() -> None:
    assert [run["count"] for run in SHAPE.to_json()["layers"]] == [3]
    assert [run["count"] for run in DIFFERENT.to_json()["layers"]] == [1, 1, 1, 1]


def test_the_json_of_earlier_runs_is_read() -> None:
    written = {
        "layers": 3,
        "attn": {"width": 64, "granule": 16, "params": 64 * 90 + 30, "fixed_params": 30},
        "mlp": {"width": 48, "granule": 1, "params": 48 * 72, "fixed_params": 0},
        "total_params": 60_000,
    }
    assert ModelShape.from_json(written) == SHAPE


# Where a dimension ends


def test_each_dimension_ends_at_its_cumulative_share_of_the_target() -> None:
    ends = thresholds(22, [44, 52, 4])
    assert list(ends) == ["blocks", "mlp_channels", "heads"]
    assert ends["blocks"] == pytest.approx(9.68)
    assert ends["mlp_channels"] == pytest.approx(21.12)
    assert ends["heads"] == 22


def test_shares_are_divided_by_their_sum() -> None:
    assert thresholds(20, [2, 1, 1]) == thresholds(20, [50, 25, 25])
    assert thresholds(20, [2, 1, 1]) == {"blocks": 10, "mlp_channels": 15, "heads": 20}


def test_a_dimension_without_a_share_ends_where_the_one_before_ended() -> None:
    assert thresholds(12, [0, 1, 0]) == {"blocks": 0, "mlp_channels": 12, "heads": 12}
    assert thresholds(12, [1, 0, 1]) == {"blocks": 6, "mlp_channels": 6, "heads": 12}


@repeatable
@given(
    st.floats(0.1, 99.9),
    st.lists(st.floats(0, 100), min_size=3, max_size=3).filter(lambda shares: sum(shares) > 0.01),
)
def test_the_last_dimension_ends_exactly_at_the_target(target: float, shares: list[float]) -> None:
    ends = thresholds(target, shares)
    assert ends["heads"] == target
    assert 0 <= ends["blocks"] <= ends["mlp_channels"] <= target * (1 + 1e-12)


# Which candidate goes


def scored(*ppls: float | None) -> list[ScoredCandidate]:
    return [ScoredCandidate(candidate("attn", i, 0), ppl) for i, ppl in enumerate(ppls)]


def test_the_lowest_perplexity_goes() -> None:
    step = Step.choose(scored(12.0, 10.5, 11.0))
    assert (step.chosen.layer, step.score) == (1, 10.5)
    assert step.scored == tuple(scored(12.0, 10.5, 11.0))


def test_of_equal_perplexities_the_first_goes() -> None:
    assert Step.choose(scored(11.0, 10.5, 10.5, 10.5)).chosen.layer == 1


def test_the_smallest_difference_that_a_float_can_hold_decides() -> None:
    assert Step.choose(scored(10.5, math.nextafter(10.5, 0))).chosen.layer == 1


def test_a_candidate_without_a_finite_perplexity_is_refused() -> None:
    step = Step.choose(scored(None, 12.0, None, 11.0))
    assert step.chosen.layer == 3
    assert [candidate.layer for candidate in step.refused] == [0, 2]


def test_a_step_without_any_finite_perplexity_says_what_to_try() -> None:
    with pytest.raises(StageError, match=r"none of the 3 candidates.*model\.dtype=float32"):
        Step.choose(scored(None, None, None))


@repeatable
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["attn", "mlp", "attn_width", "mlp_width"]),
            st.integers(0, 99),
            st.integers(0, 20_000),
            st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
    ).filter(lambda rows: any(ppl is not None for *_, ppl in rows))
)
def test_a_step_survives_its_file_with_every_bit(
    rows: list[tuple[str, int, int, float | None]],
) -> None:
    step = Step.choose([ScoredCandidate(candidate(*piece), ppl) for *piece, ppl in rows])
    read = Step.from_json(json.loads(encode(step.to_json())))
    assert read == step
    assert read.score.hex() == step.score.hex()
    assert [s.score and s.score.hex() for s in read.scored] == [
        ppl and ppl.hex() for *_, ppl in rows
    ]
