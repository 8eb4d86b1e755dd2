"""A variant says which model it is; one model in memory becomes whichever is asked for."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.files import encode
from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.variants import Origin, Variant, dense_lineage
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN, MLP, MLP_WIDTH, Candidate

Build = Callable[[PretrainedConfig | str], PreTrainedModel]

SHAPE = ModelShape.repeated(
    2, BlockShape(64, 16, 64 * 90, 0), BlockShape(48, 1, 48 * 72, 0), total_params=60_000
)
DENSE = PruningState.dense(SHAPE)
WITHOUT = {layer: DENSE.without(Candidate(ATTN, layer, 0)) for layer in (0, 1)}
LINEAGE = dense_lineage("files:abc", reordered=True)


def test_a_variant_is_told_apart_by_its_state_and_by_how_its_weights_came_about() -> None:
    tuned = (*LINEAGE, Origin("cut"), Origin("tuned", "0123"))
    variants = [
        Variant.cut(DENSE, LINEAGE),
        Variant.cut(WITHOUT[0], LINEAGE),
        Variant.cut(WITHOUT[1], LINEAGE),
        Variant.cut(WITHOUT[0], dense_lineage("files:abc", reordered=False)),
        Variant.cut(WITHOUT[0], dense_lineage("files:other", reordered=True)),
        Variant(WITHOUT[0], tuned),
        Variant(WITHOUT[0], (*tuned[:-1], Origin("tuned", "4567"))),
    ]
    assert len({variant.key for variant in variants}) == len(variants)
    for variant in variants:
        assert json.loads(encode(variant.identity())) == variant.identity()


def test_the_order_of_removal_does_not_make_another_variant() -> None:
    one = WITHOUT[0].without(Candidate(ATTN, 1, 0))
    other = WITHOUT[1].without(Candidate(ATTN, 0, 0))
    assert one != other
    assert Variant.cut(one, LINEAGE).key == Variant.cut(other, LINEAGE).key


def test_the_dense_model_is_not_cut() -> None:
    assert Variant.cut(DENSE, LINEAGE).lineage == LINEAGE
    assert [origin.how for origin in LINEAGE] == ["dense", "reordered"]
    cut = Variant.cut(WITHOUT[0], LINEAGE)
    assert [origin.how for origin in cut.lineage] == ["dense", "reordered", "cut"]
    assert cut.base == Variant.cut(DENSE, LINEAGE).base == LINEAGE


def test_tuned_weights_are_another_base_than_those_they_were_tuned_from() -> None:
    tuned = (*LINEAGE, Origin("cut"), Origin("tuned", "0123"))
    assert Variant(WITHOUT[0], tuned).base == tuned
    narrower = WITHOUT[0].without(Candidate(MLP, 0, 0))
    assert Variant.cut(narrower, tuned).base == tuned


class Loader:
    """Loads copies of one model and counts them."""

    def __init__(self, dense: PreTrainedModel) -> None:
        self.dense = dense
        self.asked: list[Variant] = []

    def __call__(self, variant: Variant) -> PrunableModel:
        self.asked.append(variant)
        return PrunableModel(copy.deepcopy(self.dense))


@pytest.fixture
def loader(build: Build) -> Loader:
    return Loader(build("mistral"))


def test_a_live_model_is_loaded_again_only_for_what_cutting_does_not_give(loader: Loader) -> None:
    live = LiveModel(loader, LINEAGE)
    dense = PruningState.dense(PrunableModel(copy.deepcopy(loader.dense)).shape)
    first = dense.without(Candidate(ATTN, 1, 0))
    second = first.without(Candidate(MLP_WIDTH, 2, 30))
    for state in (dense, first, second, second):
        assert live.at(live.cut(state)).state == state
    assert loader.asked == [live.cut(dense)]
    assert live.at(live.cut(first)).state == first
    assert loader.asked == [live.cut(dense), live.cut(first)]


def test_recovered_weights_are_the_cut_ones_with_the_values_of_their_file(
    loader: Loader, tmp_path: Path
) -> None:
    live = LiveModel(loader, LINEAGE)
    dense = PruningState.dense(PrunableModel(copy.deepcopy(loader.dense)).shape)
    cut = live.cut(dense.without(Candidate(ATTN, 1, 0)).without(Candidate(MLP_WIDTH, 2, 30)))
    before = {name: each.clone() for name, each in live.at(cut).weights().items()}
    name = next(name for name in before if name.startswith("mlp.2.body"))
    save_file({name: before[name] + 1}, tmp_path / "values.safetensors")
    tuned = live.changed("tuned", cut, tmp_path / "values.safetensors", "0123")
    assert tuned == Variant(cut.state, (*cut.lineage, Origin("tuned", "0123")))
    assert tuned.before_recovery == cut

    model = live.at(tuned)
    assert len(loader.asked) == 1, "cutting is not done again"
    for each, values in model.weights().items():
        assert torch.equal(values, before[each] + (each == name))
    assert live.at(tuned) is model
    assert live.at(cut) is not model, "other values are not undone"
    assert pickle.loads(pickle.dumps(live)).values == live.values  # noqa: S301


def load_nothing(_: Variant) -> PrunableModel:
    raise AssertionError("nothing is loaded before it is needed")


def test_a_pickled_live_model_takes_no_weights_along() -> None:
    live = LiveModel(load_nothing, LINEAGE)
    assert pickle.dumps(live) == pickle.dumps(live)
    live._model = torch.nn.Linear(1000, 1000)
    packed = pickle.dumps(live)
    assert len(packed) < 1000
    received = pickle.loads(packed)  # noqa: S301
    assert (received.load, received.lineage) == (load_nothing, LINEAGE)
