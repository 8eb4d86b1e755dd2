"""Parameter counts against the published ones, and the file that a pruning state is written to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from pipeline.errors import ConfigError
from pipeline.files import encode, read_json
from pipeline.models.prunable import shape_from_config
from pipeline.pruning.shape import BlockShape, LayerShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import UNITS, Candidate

EXACT = [
    *(("Llama-2-7B", ratio) for ratio in (7, 10, 12, 14, 15, 18, 22)),
    ("Llama-2-13B", 25),
    *(("Meta-Llama-3-8B", ratio) for ratio in (10, 17, 20)),
    *(("Llama-3.1-8B", ratio) for ratio in (10, 17, 20)),
    ("Llama-3.2-3B", 9),
    *(("Qwen2.5-7B", ratio) for ratio in (10, 20)),
]
"""Published rows that must be counted exactly; the counts of Qwen1.5 differ by some biases."""

KEYS = ("pruned_attn_idx", "pruned_mlp_idx", "pruned_attn_width", "pruned_mlp_width")

SHAPE = ModelShape.repeated(
    count=4,
    attn=BlockShape(width=64, group_width=16, params=64 * 90 + 30, fixed_params=30),
    mlp=BlockShape(width=48, group_width=1, params=48 * 72, fixed_params=0),
    total_params=100_000,
)


# Published counts

Published = dict[tuple[str, int], dict[str, Any]]
ShapeOf = Callable[[str, int], ModelShape]


@pytest.fixture(scope="module")
def published(shared: Path) -> Published:
    rows = read_json(shared / "paper" / "published_results.json")["multipruner"]
    return {(row["model"], row["ratio_percent"]): row for row in rows}


@pytest.fixture(scope="module")
def shape_of(published: Published) -> ShapeOf:
    """The shape of a published model; each is built once."""
    shapes: dict[str, ModelShape] = {}

    def shape(model: str, ratio_percent: int) -> ModelShape:
        if model not in shapes:
            architecture = dict(published[model, ratio_percent]["architecture"])
            config = CONFIG_MAPPING[architecture.pop("model_type")](**architecture)
            shapes[model] = shape_from_config(config)
        return shapes[model]

    return shape


@pytest.mark.parametrize(("model", "ratio"), EXACT)
def test_counts_are_the_published_ones(
    published: Published, shape_of: ShapeOf, model: str, ratio: int
) -> None:
    row, shape = published[model, ratio], shape_of(model, ratio)
    state = PruningState.from_pruning_config(shape, row["pruning_config"])
    assert PruningState.dense(shape).params == shape.total_params == row["total_params"]
    assert state.params == row["remaining_params"]
    assert state.ratio_percent == pytest.approx(ratio, abs=0.2)


def test_every_published_llama_and_qwen25_is_counted(published: Published) -> None:
    assert {key for key in published if "Llama" in key[0] or "Qwen2.5" in key[0]} == set(EXACT)


def test_qwen15_14b_is_counted_with_all_its_biases(published: Published, shape_of) -> None:
    config = published["Qwen1.5-14B", 24]["pruning_config"]
    state = PruningState.from_pruning_config(shape_of("Qwen1.5-14B", 24), config)
    assert state.params == 10_835_940_096


def test_published_widths_whose_keys_are_shifted_are_refused_and_explained(
    published: Published, shape_of: ShapeOf
) -> None:
    row, shape = published["Qwen1.5-7B", 22], shape_of("Qwen1.5-7B", 22)
    shifted = row["pruning_config"]
    with pytest.raises(ConfigError, match="keys run from 32 to 63 instead of 0 to 31") as error:
        PruningState.from_pruning_config(shape, shifted)
    assert len(error.value.problems) == 1
    assert "pruned_mlp_width" in str(error.value)
    assert "subtract 32" in str(error.value)

    widths = {str(int(layer) - 32): w for layer, w in shifted["pruned_mlp_width"].items()}
    state = PruningState.from_pruning_config(shape, shifted | {"pruned_mlp_width": widths})
    assert state.params == 6_037_202_432


# The file


@st.composite
def states(draw: st.DrawFn) -> PruningState:
    layers = st.lists(st.integers(0, len(SHAPE.layers) - 1), unique=True)
    widths = {"min_size": len(SHAPE.layers), "max_size": len(SHAPE.layers)}
    return PruningState(
        SHAPE,
        tuple(draw(layers)),
        tuple(draw(layers)),
        tuple(16 * groups for groups in draw(st.lists(st.integers(1, 4), **widths))),
        tuple(draw(st.lists(st.integers(1, 48), **widths))),
    )


@settings(derandomize=True, database=None, deadline=None)
@given(states())
def test_a_state_survives_its_file_with_the_order_of_removal(state: PruningState) -> None:
    config = state.to_pruning_config()
    assert tuple(config) == KEYS
    assert PruningState.from_pruning_config(SHAPE, config) == state


def test_a_state_survives_a_file_on_disk(tmp_path: Path) -> None:
    state = PruningState.dense(SHAPE)
    for unit, layer, width in [("mlp_width", 2, 40), ("attn", 3, 0), ("attn", 1, 0), ("mlp", 2, 0)]:
        state = state.without(Candidate(UNITS[unit], layer, width))
    path = tmp_path / "pruning_config.json"
    path.write_text(encode(state.to_pruning_config()))
    assert read_json(path) == {
        "pruned_attn_idx": [3, 1],
        "pruned_mlp_idx": [2],
        "pruned_attn_width": {"0": 64, "1": 64, "2": 64, "3": 64},
        "pruned_mlp_width": {"0": 48, "1": 48, "2": 40, "3": 48},
    }
    assert PruningState.from_pruning_config(SHAPE, read_json(path)) == state


WITHOUT_MLP_IN_LAYER_1 = replace(
    SHAPE, layers=(*SHAPE.layers[:1], LayerShape(SHAPE.layers[1].attn, None), *SHAPE.layers[2:])
)


def test_the_file_lists_layers_without_a_block_too() -> None:
    state = PruningState.dense(WITHOUT_MLP_IN_LAYER_1)
    config = state.to_pruning_config()
    assert config["pruned_mlp_width"] == {"0": 48, "1": 0, "2": 48, "3": 48}
    assert PruningState.from_pruning_config(WITHOUT_MLP_IN_LAYER_1, config) == state


@pytest.mark.parametrize(
    ("key", "value", "explanation"),
    [
        ("pruned_mlp_idx", [3, 1], r"layers \[1\] of the model have no MLP"),
        ("pruned_mlp_width", {"0": 48, "1": 48, "2": 48, "3": 48}, "1 has 48; allowed is 0: the"),
    ],
)
def test_a_file_for_blocks_that_there_are_not_is_refused(
    key: str, value: Any, explanation: str
) -> None:
    config = PruningState.dense(WITHOUT_MLP_IN_LAYER_1).to_pruning_config()
    with pytest.raises(ConfigError, match=f"{key}: .*{explanation}"):
        PruningState.from_pruning_config(WITHOUT_MLP_IN_LAYER_1, config | {key: value})


def test_the_order_of_keys_in_the_file_does_not_count() -> None:
    config = PruningState.dense(SHAPE).to_pruning_config()
    config["pruned_mlp_width"] = {"3": 45, "1": 46, "0": 47, "2": 48}
    state = PruningState.from_pruning_config(SHAPE, config)
    assert state.mlp_widths == (47, 46, 48, 45)


DENSE = PruningState.dense(SHAPE).to_pruning_config()
ATTN, MLP = DENSE["pruned_attn_width"], DENSE["pruned_mlp_width"]


@pytest.mark.parametrize(
    ("key", "value", "explanation"),
    [
        ("pruned_attn_idx", None, "None is not a list of layer numbers"),
        ("pruned_attn_idx", {"0": 1}, "is not a list of layer numbers"),
        ("pruned_attn_idx", 3, "3 is not a list of layer numbers"),
        ("pruned_mlp_idx", ["1"], "is not a list of layer numbers"),
        ("pruned_mlp_idx", [1.0], "is not a list of layer numbers"),
        ("pruned_mlp_idx", [True], "is not a list of layer numbers"),
        ("pruned_attn_idx", [0, 4], r"layers \[4\] do not exist; .* 0 to 3"),
        ("pruned_mlp_idx", [-1], r"layers \[-1\] do not exist"),
        ("pruned_mlp_idx", [2, 0, 2], "names a layer twice"),
        ("pruned_attn_width", None, "not an object from layer number to width"),
        ("pruned_attn_width", [64, 64, 64, 64], "not an object from layer number to width"),
        ("pruned_mlp_width", MLP | {"layer 1": 48}, "not an object from layer number to width"),
        ("pruned_mlp_width", MLP | {"-1": 48}, "not an object from layer number to width"),
        ("pruned_mlp_width", {}, r"must list every layer from 0 to 3; it lists \[\]"),
        ("pruned_mlp_width", {"0": 48, "2": 48, "3": 48}, r"it lists \[0, 2, 3\]"),
        ("pruned_mlp_width", MLP | {"4": 48}, r"it lists \[0, 1, 2, 3, 4\]"),
        ("pruned_mlp_width", {"1": 48, "2": 48, "3": 48, "4": 48}, "subtract 1 from every key"),
        ("pruned_attn_width", ATTN | {"1": 0}, "layer 1 has 0; allowed is a multiple of 16"),
        ("pruned_mlp_width", MLP | {"2": 0}, "layer 2 has 0; allowed is .* from 1 to 48"),
        ("pruned_attn_width", ATTN | {"1": 24}, "layer 1 has 24; allowed is a multiple of 16"),
        ("pruned_attn_width", ATTN | {"1": 80}, "layer 1 has 80; allowed is .* from 16 to 64"),
        ("pruned_mlp_width", MLP | {"0": -8}, "layer 0 has -8"),
        ("pruned_mlp_width", MLP | {"0": 49}, "layer 0 has 49"),
        ("pruned_mlp_width", MLP | {"0": 48.0}, r"layer 0 has 48\.0"),
        ("pruned_mlp_width", MLP | {"0": "48"}, "layer 0 has '48'"),
        ("pruned_mlp_width", MLP | {"0": True}, "layer 0 has True"),
        ("pruned_mlp_width", MLP | {"0": None}, "layer 0 has None"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(key: str, value: Any, explanation: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .*{explanation}"):
        PruningState.from_pruning_config(SHAPE, DENSE | {key: value})


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_lacks_a_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        PruningState.from_pruning_config(SHAPE, {k: DENSE[k] for k in KEYS if k != key})


def test_all_that_is_wrong_with_a_file_is_said_at_once() -> None:
    config = {
        "pruned_attn_idx": [7, 7],
        "pruned_mlp_idx": "all",
        "pruned_attn_width": ATTN | {"0": 1, "3": 2},
    }
    with pytest.raises(ConfigError) as error:
        PruningState.from_pruning_config(SHAPE, config)
    named = [problem.split(":")[0] for problem in error.value.problems]
    assert named == [
        "pruned_attn_idx",  # does not exist
        "pruned_attn_idx",  # twice
        "pruned_mlp_idx",
        "pruned_attn_width",  # layer 0
        "pruned_attn_width",  # layer 3
        "pruned_mlp_width",
    ]
