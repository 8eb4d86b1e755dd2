"""What may go in a phase: kept layers, uniform shares, groups of two sizes."""

import pytest

from pipeline.pruning.phases import Phase
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN_WIDTH, BLOCKS, HEADS, LAYERS, MLP_CHANNELS, MLP_WIDTH, Unit

ATTN = BlockShape(width=16, group_width=4, params=160, fixed_params=0)
MLP = BlockShape(width=10, group_width=1, params=100, fixed_params=0)
DENSE = PruningState.dense(ModelShape.repeated(4, ATTN, MLP, total_params=2000))
WIDTHS = (ATTN_WIDTH, MLP_WIDTH)
SIZES = {"attn_width": 4, "mlp_width": 2}


def walked(phase: Phase, steps: int) -> PruningState:
    """After so many steps, in each of which the first candidate goes."""
    state = DENSE
    for _ in range(steps):
        state = state.without(phase.candidates(state)[0])
    return state


@pytest.mark.parametrize("units", [LAYERS, BLOCKS, MLP_CHANNELS, HEADS])
def test_layers_that_are_kept_have_no_candidates(units: tuple[Unit, ...]) -> None:
    size = None if units in (LAYERS, BLOCKS) else 4
    every = Phase("some", units, 100, size).candidates(DENSE)
    inner = Phase("some", units, 100, size, keep_first=1, keep_last=2).candidates(DENSE)
    assert inner == [each for each in every if each.layer == 1]


def test_units_of_a_phase_have_groups_of_their_own() -> None:
    found = Phase("widths", WIDTHS, 100, SIZES).candidates(DENSE)
    assert {(each.unit.name, each.width_after) for each in found} == {
        ("attn_width", 12),
        ("mlp_width", 8),
    }


def test_uniform_blocks_never_lose_more_than_one_ratio_for_all_would_take() -> None:
    phase = Phase("widths", WIDTHS, 100, SIZES, is_uniform=True)
    assert walked(phase, 4).mlp_widths == (8, 8, 8, 8)
    assert walked(phase, 4).attn_widths == (16, 16, 16, 16), "a quarter is more than a fifth"
    assert walked(phase, 8).attn_widths == (12, 12, 12, 12)
    assert walked(phase, 8).mlp_widths == (8, 8, 8, 8)
    assert walked(phase, 12).mlp_widths == (6, 6, 6, 6)


def test_what_a_phase_leaves_is_what_its_last_step_leaves() -> None:
    for phase in (
        Phase("widths", WIDTHS, 100, {"attn_width": 12, "mlp_width": 3}, keep_first=1),
        Phase("layers", LAYERS, 100, keep_first=1, keep_last=1),
        Phase("widths", WIDTHS, 100, SIZES, is_uniform=True),
    ):
        state = DENSE
        while candidates := phase.candidates(state):
            state = state.without(candidates[0])
        assert phase.exhausted(DENSE).identity() == state.identity()


def test_what_decides_the_candidates_is_in_a_phases_identity() -> None:
    phases = [
        Phase("widths", WIDTHS, 100, SIZES),
        Phase("widths", WIDTHS, 100, {**SIZES, "mlp_width": 4}),
        Phase("widths", WIDTHS, 100, SIZES, keep_first=1),
        Phase("widths", WIDTHS, 100, SIZES, keep_last=1),
        Phase("widths", WIDTHS, 100, SIZES, is_uniform=True),
    ]
    identities = [str(phase.identity()) for phase in phases]
    assert len(set(identities)) == len(phases)
    assert Phase("blocks", BLOCKS, 10).identity() == {"dimension": "blocks", "group_size": None}
