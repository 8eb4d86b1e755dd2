"""Physical pruning against an oracle: the stock model with the inputs of cut channels zeroed.

A block that is gone is one that gives zero. Nothing is compared with stored numbers.
"""

import copy
import gc
import weakref
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from support_models import cached_logits, logits
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
)

from pipeline.errors import ConfigError
from pipeline.models.blocks import Block
from pipeline.models.prunable import PrunableModel, shape_from_config
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import UNITS, Candidate, Cut

LAYERS = range(4)
PIECES = ("attn", "mlp", "attn_width", "mlp_width")

# Weights are float64 and differences were below 1e-13 where measured. But transformers' norms round
# to float32, and on another machine a sum in another order may flip one such rounding.
TOLERANCE = 1e-6
SOFTMAX_TOLERANCE = 1e-5  # eager attention takes its softmax in float32
MATTERS = 1e-3

Build = Callable[[PretrainedConfig | str], PreTrainedModel]
Piece = tuple[str, int]
COMBINATIONS: dict[str, list[Piece]] = {
    "attention_of_layer_0": [("attn", 0)],
    "attentions_of_layers_0_and_1": [("attn", 0), ("attn", 1)],
    "attentions_of_layers_2_and_3": [("attn", 3), ("attn", 2)],
    "all_attentions": [("attn", i) for i in LAYERS],
    "all_mlps": [("mlp", i) for i in LAYERS],
    "all_of_layer_0": [("mlp", 0), ("attn", 0)],
    "all_but_the_last_attention": [("attn", i) for i in range(3)] + [("mlp", i) for i in LAYERS],
    "everything": [(unit, i) for unit in ("attn", "mlp") for i in LAYERS],
    "every_width": [(unit, i) for unit in ("attn_width", "mlp_width") for i in LAYERS],
    "some_of_each": [
        ("attn", 0),
        ("mlp", 2),
        ("mlp", 0),
        ("attn_width", 1),
        ("attn_width", 3),
        ("mlp_width", 1),
    ],
    "narrowed_before_it_went": [("attn_width", 0), ("mlp_width", 1), ("attn", 0), ("mlp", 1)],
}


def without(shape: ModelShape, pieces: Iterable[Piece]) -> PruningState:
    """The dense state less some pieces: a width loses a key/value group, or seven MLP channels."""
    width_after = {
        "attn": 0,
        "mlp": 0,
        "attn_width": shape.layers[0].attn.width - shape.layers[0].attn.group_width,
        "mlp_width": shape.layers[0].mlp.width - 7,
    }
    state = PruningState.dense(shape)
    for unit, layer in pieces:
        state = state.without(Candidate(UNITS[unit], layer, width_after[unit]))
    return state


def pruned(dense: PreTrainedModel, state: PruningState) -> PrunableModel:
    model = PrunableModel(copy.deepcopy(dense))
    model.prune_to(state)
    return model


def oracle(dense: PreTrainedModel, state: PruningState) -> PreTrainedModel:
    stock = copy.deepcopy(dense)
    for i, layer in enumerate(stock.model.layers):
        for linear, width, removed in (
            (layer.self_attn.o_proj, state.attn_widths[i], i in state.removed_attn),
            (layer.mlp.down_proj, state.mlp_widths[i], i in state.removed_mlp),
        ):
            keep_channels(linear, [] if removed else range(width))
            if removed and linear.bias is not None:
                linear.bias.zero_()
    return stock


def keep_channels(linear: nn.Linear, channels: Sequence[int]) -> None:
    mask = torch.zeros(linear.in_features, dtype=linear.weight.dtype)
    mask[list(channels)] = 1
    linear.register_forward_pre_hook(lambda _, inputs: (inputs[0] * mask,))


def greedy_without_cache(model: PreTrainedModel, ids: Tensor, tokens: int) -> Tensor:
    for _ in range(tokens):
        ids = torch.cat([ids, logits(model, ids)[:, -1:].argmax(dim=-1)], dim=1)
    return ids


def generated(model: PreTrainedModel, ids: Tensor, tokens: int) -> Tensor:
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )


def assert_equal_up_to(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# What pruning leaves


@pytest.mark.parametrize("unit", PIECES)
def test_any_piece_can_go_alone(dense: PreTrainedModel, ids: Tensor, unit: str) -> None:
    assert_each_layer_can_lose(unit, dense, ids)


def assert_each_layer_can_lose(unit: str, dense: PreTrainedModel, ids: Tensor) -> None:
    whole = logits(dense, ids)
    for layer in LAYERS:
        model = PrunableModel(copy.deepcopy(dense))
        state = without(model.shape, [(unit, layer)])
        model.prune_to(state)
        left = logits(model.model, ids)
        assert_equal_up_to(left, logits(oracle(dense, state), ids))
        assert (left - whole).abs().max() > MATTERS


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_pieces_can_go_together(dense: PreTrainedModel, ids: Tensor, pieces: list[Piece]) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    state = without(model.shape, pieces)
    model.prune_to(state)
    assert_equal_up_to(logits(model.model, ids), logits(oracle(dense, state), ids))


def test_a_wrapped_model_that_lost_nothing_is_the_stock_model(
    dense: PreTrainedModel, ids: Tensor
) -> None:
    assert torch.equal(logits(PrunableModel(copy.deepcopy(dense)).model, ids), logits(dense, ids))


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_going_step_by_step_leaves_the_same_bits_as_going_at_once(
    dense: PreTrainedModel, ids: Tensor, pieces: list[Piece]
) -> None:
    stepwise = PrunableModel(copy.deepcopy(dense))
    for count in range(len(pieces) + 1):
        stepwise.prune_to(without(stepwise.shape, pieces[:count]))
    at_once = pruned(dense, without(stepwise.shape, pieces))
    ours, theirs = stepwise.model.state_dict(), at_once.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(logits(stepwise.model, ids), logits(at_once.model, ids))


@pytest.mark.parametrize("unit", PIECES)
def test_what_was_removed_cannot_come_back(dense: PreTrainedModel, unit: str) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, [(unit, 1)]))
    with pytest.raises(AssertionError, match="cannot come back"):
        model.prune_to(PruningState.dense(model.shape))


# Decoding with a KV cache


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_decoding_with_a_cache_equals_the_full_forward_pass(
    dense: PreTrainedModel, ids: Tensor, pieces: list[Piece]
) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    state = without(model.shape, pieces)
    model.prune_to(state)
    cached, _ = cached_logits(model.model, ids, prompt=11)
    assert_equal_up_to(cached, logits(model.model, ids))
    assert_equal_up_to(cached, logits(oracle(dense, state), ids))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_cache_has_one_layer_for_each_attention_left_and_knows_its_length(
    dense: PreTrainedModel, ids: Tensor, layer: int
) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, [("attn", layer)]))
    _, cache = cached_logits(model.model, ids, prompt=11)
    assert len(cache.layers) == len(LAYERS) - 1
    assert [cache.get_seq_length(i) for i in range(len(cache.layers))] == [ids.shape[1]] * 3


def test_layers_numbered_as_in_the_dense_model_would_lose_the_length_of_the_cache(
    build: Build, ids: Tensor
) -> None:
    model = PrunableModel(build("llama_wide_heads"))
    model.prune_to(without(model.shape, [("attn", 0)]))
    expected = logits(model.model, ids)
    cached, cache = cached_logits(model.model, ids, prompt=11, cache=DynamicCache())
    assert cache.get_seq_length() == ids.shape[1]
    assert_equal_up_to(cached, expected)

    for block in model.blocks:
        if block.kind == "attn":
            block.body.layer_idx = block.layer
    cached, cache = cached_logits(model.model, ids, prompt=11, cache=DynamicCache())
    assert cache.get_seq_length() == 0
    assert_equal_up_to(cached[:, :11], expected[:, :11])
    assert (cached[:, 11:] - expected[:, 11:]).abs().max() > 0.1


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_generate_gives_the_tokens_of_greedy_decoding_without_a_cache(
    dense: PreTrainedModel, ids: Tensor, pieces: list[Piece]
) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, pieces))
    prompt = ids[:, :7]
    expected = greedy_without_cache(model.model, prompt, tokens=6)
    assert torch.equal(generated(model.model, prompt, tokens=6), expected)


# Memory and counts


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_parameters_are_contiguous_and_share_no_memory_with_what_was_cut(
    dense: PreTrainedModel, pieces: list[Piece]
) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, pieces))
    for name, parameter in model.model.named_parameters():
        assert parameter.is_contiguous(), name
        size = parameter.numel() * parameter.element_size()
        assert parameter.untyped_storage().nbytes() == size, name
    for name, module in model.model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features), name


def test_a_removed_block_is_freed(dense: PreTrainedModel) -> None:
    model = PrunableModel(dense)
    layer = model.blocks[2]
    gone = [weakref.ref(part) for part in (layer, layer.body, layer.body.o_proj.weight)]
    del layer
    model.prune_to(without(model.shape, [("attn", 1)]))
    gc.collect()
    assert [part() for part in gone] == [None, None, None]


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_the_state_counts_what_is_there_and_the_norms_of_removed_blocks(
    dense: PreTrainedModel, pieces: list[Piece]
) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, pieces))
    removed = len(model.state.removed_attn) + len(model.state.removed_mlp)
    physical = sum(parameter.numel() for parameter in model.model.parameters())
    assert physical == model.state.params - removed * model.model.config.hidden_size


def test_the_shape_from_the_configuration_is_that_of_the_model(dense: PreTrainedModel) -> None:
    assert shape_from_config(copy.deepcopy(dense.config)) == PrunableModel(dense).shape


# Reordering


def test_reordering_leaves_the_function_unchanged(dense: PreTrainedModel, ids: Tensor) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    model.reorder()
    assert_equal_up_to(logits(model.model, ids), logits(dense, ids))
    assert not torch.equal(model.blocks[1].body.down_proj.weight, mlp(dense, 0).down_proj.weight)


def test_reordering_a_cut_model_leaves_its_function_unchanged(
    dense: PreTrainedModel, ids: Tensor
) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, COMBINATIONS["some_of_each"]))
    before = logits(model.model, ids)
    model.reorder()
    assert_equal_up_to(logits(model.model, ids), before)


def test_mlp_channels_are_sorted_by_the_l1_norms_of_gate_and_up(dense: PreTrainedModel) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    model.reorder()
    for layer in LAYERS:
        before, after = mlp(dense, layer), model.blocks[2 * layer + 1].body
        order = mlp_order(before)
        assert torch.equal(after.gate_proj.weight, before.gate_proj.weight[order])
        assert torch.equal(after.up_proj.weight, before.up_proj.weight[order])
        assert torch.equal(after.down_proj.weight, before.down_proj.weight[:, order])
        if before.up_proj.bias is not None:
            assert torch.equal(after.up_proj.bias, before.up_proj.bias[order])
            assert torch.equal(after.down_proj.bias, before.down_proj.bias)


def test_groups_of_heads_are_sorted_by_query_norms_and_key_and_value_norms_once_per_query_head(
    dense: PreTrainedModel,
) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    model.reorder()
    for layer in LAYERS:
        before, after = dense.model.layers[layer].self_attn, model.blocks[2 * layer].body
        query_rows, key_rows = rows_in_order(model, before)
        assert torch.equal(after.q_proj.weight, before.q_proj.weight[query_rows])
        assert torch.equal(after.k_proj.weight, before.k_proj.weight[key_rows])
        assert torch.equal(after.v_proj.weight, before.v_proj.weight[key_rows])
        assert torch.equal(after.o_proj.weight, before.o_proj.weight[:, query_rows])
        if before.q_proj.bias is not None:
            assert torch.equal(after.q_proj.bias, before.q_proj.bias[query_rows])
            assert torch.equal(after.k_proj.bias, before.k_proj.bias[key_rows])
            assert torch.equal(after.v_proj.bias, before.v_proj.bias[key_rows])


def test_key_and_value_norms_decide_with_the_weight_of_their_query_heads(build: Build) -> None:
    model = PrunableModel(build("llama_wide_heads"))  # three query heads to a key/value head
    block = model.blocks[0]
    for name, first, second in (("q_proj", 2.0, 1.0), ("k_proj", 1.0, 1.4), ("v_proj", 1.0, 1.7)):
        weight = block.body.get_submodule(name).weight
        weight[: len(weight) // 2], weight[len(weight) // 2 :] = first, second
    # By rows of 16: 3 x 2.0 + 3 x (1.0 + 1.0) = 12 against 3 x 1.0 + 3 x (1.4 + 1.7) = 12.3.
    block.reorder()
    assert block.body.q_proj.weight[0, 0] == 1.0
    assert block.body.v_proj.weight[0, 0] == pytest.approx(1.7)


def test_equal_channels_keep_their_order(build: Build) -> None:
    model = PrunableModel(build("mistral"))
    body = model.blocks[1].body
    body.gate_proj.weight[:] = 1.0
    body.up_proj.weight[:] = -1.0
    before = body.down_proj.weight.clone()
    model.reorder()
    assert torch.equal(body.down_proj.weight, before)


def test_cutting_a_reordered_model_removes_the_least_important_channels_and_heads(
    dense: PreTrainedModel, ids: Tensor
) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    model.reorder()
    state = without(model.shape, [("attn_width", 1), ("mlp_width", 2)])
    model.prune_to(state)
    stock = copy.deepcopy(dense)
    attention = stock.model.layers[1].self_attn
    query_rows, _ = rows_in_order(model, attention)
    keep_channels(attention.o_proj, query_rows[: state.attn_widths[1]])
    keep_channels(mlp(stock, 2).down_proj, mlp_order(mlp(stock, 2))[: state.mlp_widths[2]])
    assert_equal_up_to(logits(model.model, ids), logits(stock, ids))


def mlp(dense: PreTrainedModel, layer: int) -> nn.Module:
    return dense.model.layers[layer].mlp


def mlp_order(body: nn.Module) -> list[int]:
    norms = [
        sum(float(linear.weight[channel].abs().sum()) for linear in (body.gate_proj, body.up_proj))
        for channel in range(body.gate_proj.out_features)
    ]
    return descending(norms)


def rows_in_order(model: PrunableModel, body: nn.Module) -> tuple[list[int], list[int]]:
    """Query rows, and key and value rows, in the documented order."""
    heads = model.blocks[0].channels
    repeats = heads.queries_per_key
    norms = []
    for group in range(heads.key_value_heads):
        query = rows_of([group], repeats * heads.head_dim)
        key = rows_of([group], heads.head_dim)
        key_value = body.k_proj.weight[key].abs().sum() + body.v_proj.weight[key].abs().sum()
        norms.append(float(body.q_proj.weight[query].abs().sum() + repeats * key_value))
    groups = descending(norms)
    return rows_of(groups, repeats * heads.head_dim), rows_of(groups, heads.head_dim)


def rows_of(groups: Iterable[int], size: int) -> list[int]:
    return [group * size + row for group in groups for row in range(size)]


def descending(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda i: -values[i])


# Blocks one by one, as the scorer runs them


@pytest.mark.parametrize("unit", ["attn", "mlp"])
def test_a_block_run_with_a_width_equals_the_block_cut_to_it(
    dense: PreTrainedModel, ids: Tensor, unit: str
) -> None:
    model = PrunableModel(dense)
    decoder = model.decoder_input(ids)
    hidden = decoder.hidden
    for block, context in zip(model.blocks, decoder.contexts, strict=True):
        width = block.width - (model.shape.layers[0].attn.group_width if unit == "attn" else 7)
        following = block(hidden, context)
        if block.kind == unit:
            narrow = hidden + block.residual(hidden, context, Cut(unit, block.layer, width))
            assert (narrow - following).abs().max() > MATTERS
            assert torch.equal(block(hidden, context), following), "the block itself stays whole"
            block.cut(width)
            assert_equal_up_to(narrow, block(hidden, context), 1e-12)
        hidden = following


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_walking_the_blocks_gives_the_logits_of_the_forward_pass(
    dense: PreTrainedModel, ids: Tensor, pieces: list[Piece]
) -> None:
    model = PrunableModel(dense)
    model.prune_to(without(model.shape, pieces))
    decoder = model.decoder_input(ids)
    hidden = decoder.hidden
    for block, context in zip(model.blocks, decoder.contexts, strict=True):
        hidden = block(hidden, context)
    assert_equal_up_to(model.logits(model.normed(hidden)), logits(model.model, ids), 1e-12)


# Families


def test_an_unknown_architecture_is_refused_with_a_list_of_the_known_ones() -> None:
    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16)
    for attempt in (
        lambda: PrunableModel(GPT2LMHeadModel(config)),
        lambda: shape_from_config(config),
    ):
        with pytest.raises(ConfigError, match="'gpt2'") as error:
            attempt()
        for known in ("llama", "mistral", "qwen2", "qwen3"):
            assert known in str(error.value)


@pytest.fixture
def gemma2(build: Build) -> PreTrainedModel:
    """Norms after the blocks, soft-capped scores and logits, a sliding window every other layer."""
    config = Gemma2Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=5,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    return build(config)


@pytest.mark.parametrize("unit", PIECES)
def test_any_piece_of_a_family_with_norms_after_its_blocks_can_go(
    gemma2: PreTrainedModel, ids: Tensor, unit: str
) -> None:
    assert_each_layer_can_lose(unit, gemma2, ids)


@pytest.mark.parametrize("pieces", COMBINATIONS.values(), ids=COMBINATIONS)
def test_pieces_of_a_family_with_norms_after_its_blocks_can_go_together(
    gemma2: PreTrainedModel, ids: Tensor, pieces: list[Piece]
) -> None:
    model = PrunableModel(copy.deepcopy(gemma2))
    state = without(model.shape, pieces)
    model.prune_to(state)
    expected = logits(oracle(gemma2, state), ids)
    assert_equal_up_to(logits(model.model, ids), expected)
    cached, _ = cached_logits(model.model, ids, prompt=11)
    assert_equal_up_to(cached, expected, SOFTMAX_TOLERANCE)
    removed = len(state.removed_attn) + len(state.removed_mlp)
    physical = sum(parameter.numel() for parameter in model.model.parameters())
    assert physical == state.params - removed * 2 * gemma2.config.hidden_size


def test_a_family_with_norms_after_its_blocks_can_be_reordered(
    gemma2: PreTrainedModel, ids: Tensor
) -> None:
    before = logits(gemma2, ids)
    PrunableModel(gemma2).reorder()
    assert_equal_up_to(logits(gemma2, ids), before)


@pytest.fixture
def phi3(build: Build) -> PreTrainedModel:
    """Fused projections: query, key and value in one, gate and up in another."""
    config = Phi3Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    return build(config)


@pytest.mark.parametrize("unit", PIECES)
def test_any_piece_of_a_family_with_fused_projections_can_go(
    phi3: PreTrainedModel, ids: Tensor, unit: str
) -> None:
    assert_each_layer_can_lose(unit, phi3, ids)


def test_a_fused_attention_is_cut_segment_by_segment(phi3: PreTrainedModel) -> None:
    block = PrunableModel(phi3).blocks[0]
    fused, out = block.body.qkv_proj.weight.clone(), block.body.o_proj.weight.clone()
    query, key, value = fused.split([32, 16, 16])
    narrowed = block._narrowed(16)
    assert_cut = [torch.cat([query[:16], key[:8], value[:8]]), out[:, :16]]
    assert [*narrowed] == ["qkv_proj.weight", "o_proj.weight"]
    assert all(map(torch.equal, narrowed.values(), assert_cut))
    block.cut(16)
    assert block.width == 16
    assert all(map(torch.equal, block.body.parameters(), reversed(assert_cut)))
    assert (block.body.qkv_proj.out_features, block.body.o_proj.in_features) == (32, 16)


def test_a_fused_mlp_is_cut_segment_by_segment(phi3: PreTrainedModel) -> None:
    block = PrunableModel(phi3).blocks[1]
    gate, up = block.body.gate_up_proj.weight.clone().split(44)
    down = block.body.down_proj.weight.clone()
    block.cut(30)
    assert torch.equal(block.body.gate_up_proj.weight, torch.cat([gate[:30], up[:30]]))
    assert torch.equal(block.body.down_proj.weight, down[:, :30])
    assert block.body.gate_up_proj.weight.is_contiguous()


def test_fused_projections_are_reordered_segment_by_segment(
    phi3: PreTrainedModel, ids: Tensor
) -> None:
    attention, mlp_block = PrunableModel(phi3).blocks[:2]
    put_least_important_group_first(attention)
    query, key, value = attention.body.qkv_proj.weight.clone().split([32, 16, 16])
    gate, up = mlp_block.body.gate_up_proj.weight.clone().split(44)
    before = logits(phi3, ids)
    attention.reorder()
    mlp_block.reorder()
    swapped = [torch.cat([t[len(t) // 2 :], t[: len(t) // 2]]) for t in (query, key, value)]
    assert torch.equal(attention.body.qkv_proj.weight, torch.cat(swapped))
    order = descending((gate.abs().sum(1) + up.abs().sum(1)).tolist())
    assert torch.equal(mlp_block.body.gate_up_proj.weight, torch.cat([gate[order], up[order]]))
    assert_equal_up_to(logits(phi3, ids), before)


def put_least_important_group_first(block: Block) -> None:
    for segment in block.body.qkv_proj.weight.split([32, 16, 16]):
        segment[: len(segment) // 2] /= 2
