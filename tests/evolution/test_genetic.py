"""NSGA-II on a made-up model: generations come from one another, and from the seed alone."""

from collections.abc import Sequence

import pytest

from pipeline.evolution.base import Found, Given, Measure, Space
from pipeline.evolution.genetic import Genetic
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import MLP_CHANNELS

SPACE = Space({"mlp_width": 8, "attn_width": 8})
SHAPE = ModelShape.repeated(
    8, BlockShape(32, 8, 4_000, 0), BlockShape(64, 1, 12_000, 0), total_params=140_000
)
TARGET = 20.0


def cost(state: PruningState) -> float:
    """Lowest where deep layers lose most; the first group of a block costs more than its share."""
    gone = [(64 - width) // 8 for width in state.mlp_widths]
    heads = [(32 - width) // 8 for width in state.attn_widths]
    layers = [
        (1.2 if mlp else 0.0) + 0.1 * mlp + 0.9 * attn
        for mlp, attn in zip(gone, heads, strict=True)
    ]
    return 10 + sum(each * (1 + 0.02 * (8 - at)) for at, each in enumerate(layers))


class Asked:
    """Evaluates with ``cost``, and keeps what it was asked for on all of the text."""

    rungs = 1

    def __init__(self) -> None:
        self.batches: list[list[PruningState]] = []

    def __call__(
        self,
        states: Sequence[PruningState],
        measure: Measure,
        *,
        rung: int | None = None,
        held_out: bool = False,
    ) -> list[float]:
        if rung is None and not held_out and measure == "perplexity":
            self.batches.append(list(states))
        return [cost(state) for state in states]

    def ahead(self, states: Sequence[float], doing: str) -> None:
        pass


def given() -> Given:
    """A way that takes one group of every MLP in turn: the first groups, which cost most."""
    states = [PruningState.dense(SHAPE)]
    while states[-1].ratio_percent < TARGET:
        candidates = states[-1].candidates(MLP_CHANNELS, 8)
        widest = max(candidate.width_after for candidate in candidates)
        first = next(each for each in candidates if each.width_after == widest)
        states.append(states[-1].without(first))
    return Given(states, SPACE, TARGET)


def searched(seed: int) -> tuple[Found, Asked]:
    asked = Asked()
    search = Genetic(20, 12, None, near=3.0, finalists=4, seed=seed)
    return search.find(given(), asked), asked


@pytest.fixture(scope="module")
def first() -> tuple[Found, Asked]:
    return searched(0)


def distance(one: PruningState, other: PruningState) -> int:
    """Blocks in which they differ."""
    pairs = zip(
        (*one.mlp_widths, *one.attn_widths), (*other.mlp_widths, *other.attn_widths), strict=True
    )
    return sum(mine != theirs for mine, theirs in pairs)


def test_it_finds_a_better_state_at_the_target(first: tuple[Found, Asked]) -> None:
    found, _ = first
    assert found.state.ratio_percent >= TARGET
    assert cost(found.state) < cost(given().last)
    best = [entry["best"] for entry in found.history]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]


def test_every_generation_comes_from_the_ones_before_it(first: tuple[Found, Asked]) -> None:
    """By crossover and a few mutations; states by chance would be far from the target."""
    _, asked = first
    evaluated = [batch for batch in asked.batches[:12] if batch]
    assert len(evaluated) == 12
    assert len(evaluated[0]) > 10
    known = list(evaluated[0])
    for batch in evaluated[1:]:
        for state in batch:
            genes = {
                (kind, layer, width)
                for parent in known
                for kind in ("attn", "mlp")
                for layer, width in enumerate(parent.widths(kind))
            }
            new = [
                (kind, layer)
                for kind in ("attn", "mlp")
                for layer, width in enumerate(state.widths(kind))
                if (kind, layer, width) not in genes
            ]
            assert len(new) <= 4, "what no parent had was mutated"
        known += batch


def test_the_seed_alone_decides(first: tuple[Found, Asked]) -> None:
    again, other = searched(0), searched(1)
    assert again[0] == first[0]
    assert again[1].batches == first[1].batches
    assert other[1].batches != first[1].batches


def test_heads_are_searched_together_with_channels(first: tuple[Found, Asked]) -> None:
    _, asked = first
    dense = PruningState.dense(SHAPE)
    widths = {state.attn_widths for batch in asked.batches for state in batch}
    assert any(each != dense.attn_widths for each in widths)
