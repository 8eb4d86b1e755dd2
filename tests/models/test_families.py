"""Families are described in files: layers that differ, nested models, what cannot be removed."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families_of_tests
import pytest
import torch
from support_families import config_of, stock
from support_models import SIZES, cached_logits, logits
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from pipeline.errors import ConfigError
from pipeline.export import hf
from pipeline.models import prunable
from pipeline.models.families import FAMILIES, families_in
from pipeline.models.loading import load
from pipeline.models.packing import PackedModel
from pipeline.models.prunable import PrunableModel, shape_from_config
from pipeline.models.source import locate
from pipeline.pruning.shape import BLOCK_KINDS, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN, BLOCKS, HEADS, MLP, MLP_CHANNELS, Candidate
from pipeline.scoring.one_pass import OnePass
from pipeline.scoring.perplexity import Windows

NO_TOKENIZER: Any = SimpleNamespace(tokenizer_files=[], folder=Path("/nowhere"), gguf_file=None)
Build = Callable[[PretrainedConfig | str], PreTrainedModel]
OUTPUTS = {"attn": "o_proj", "mlp": "down_proj"}


@pytest.fixture(autouse=True)
def families(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of ``families_of_tests``, registered as the project's own are."""
    found = families_in(families_of_tests.__path__, "families_of_tests")
    for model_type, family in found.items():
        monkeypatch.setitem(FAMILIES, model_type, family)


# A model whose layers differ


class UnevenConfig(LlamaConfig):
    model_type = "uneven"


class UnevenLayer(LlamaDecoderLayer):
    """A layer that may lack its attention or its MLP, and the norm before it."""

    def __init__(self, config: PretrainedConfig, index: int) -> None:
        super().__init__(config, index)
        self.skip = config.skip
        if "attention" in self.skip:
            del self.self_attn, self.input_layernorm
        if "mlp" in self.skip:
            del self.mlp, self.post_attention_layernorm

    def forward(self, hidden_states: Tensor, **context: Any) -> Tensor:
        if "attention" not in self.skip:
            added, _ = self.self_attn(self.input_layernorm(hidden_states), **context)
            hidden_states = hidden_states + added
        if "mlp" not in self.skip:
            hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states


class UnevenModel(LlamaModel):
    def __init__(self, config: UnevenConfig) -> None:
        super().__init__(config)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList(UnevenLayer(config.per_layer_config[i], i) for i in layers)


class UnevenForCausalLM(LlamaForCausalLM):
    config_class = UnevenConfig

    def __init__(self, config: UnevenConfig) -> None:
        super().__init__(config)
        self.model = UnevenModel(config)


AutoConfig.register("uneven", UnevenConfig)
AutoModelForCausalLM.register(UnevenConfig, UnevenForCausalLM)


def uneven_config() -> UnevenConfig:
    """Widths, heads and blocks that differ from layer to layer; layer 0 has no attention."""
    return UnevenConfig(
        **SIZES | {"num_hidden_layers": 5},
        head_dim=8,
        attention_bias=True,
        allow_global_per_layer_attribute_access=True,
        per_layer_config={
            0: {"skip": ["attention"]},
            1: {"intermediate_size": 20},
            2: {"skip": ["mlp"], "num_attention_heads": 8, "num_key_value_heads": 4},
            3: {"skip": ["attention", "mlp"]},
        },
    )


@pytest.fixture
def uneven(build: Build) -> PreTrainedModel:
    return build(uneven_config())


def moves(state: PruningState) -> list[Candidate]:
    """Every candidate of every dimension: blocks, seven channels, one key/value head."""
    heads = max(layer.attn.group_width for layer in state.shape.layers if layer.attn)
    sizes = {BLOCKS: None, MLP_CHANNELS: 7, HEADS: heads}
    return [c for units, size in sizes.items() for c in state.candidates(units, size)]


def silenced(dense: PreTrainedModel, state: PruningState, layers: nn.ModuleList) -> None:
    """Zero the inputs of channels that ``state`` lacks, and the output of blocks that are gone."""
    for index, layer in enumerate(layers):
        for kind, body in (("attn", "self_attn"), ("mlp", "mlp")):
            if not hasattr(layer, body):
                continue
            out = layer.get_submodule(body).get_submodule(OUTPUTS[kind])
            is_left = index in state.left(kind)
            mask = torch.zeros(out.in_features, dtype=out.weight.dtype)
            mask[: state.widths(kind)[index] * is_left] = 1
            out.register_forward_pre_hook(lambda _, inputs, mask=mask: (inputs[0] * mask,))
            if not is_left and out.bias is not None:
                out.bias.zero_()


def oracle(dense: PreTrainedModel, state: PruningState) -> PreTrainedModel:
    stock = copy.deepcopy(dense)
    silenced(stock, state, stock.get_decoder().layers)
    return stock


def assert_each_piece_can_go(dense: PreTrainedModel, ids: Tensor) -> None:
    whole = logits(dense, ids)
    for candidate in moves(PrunableModel(copy.deepcopy(dense)).state):
        model = PrunableModel(copy.deepcopy(dense))
        model.prune_to(model.state.without(candidate))
        left = logits(model.model, ids)
        assert_close(left, logits(oracle(dense, model.state), ids), rtol=1e-6, atol=1e-6)
        assert (left - whole).abs().max() > 1e-3


def test_layers_that_differ_are_counted(uneven: PreTrainedModel) -> None:
    shape = shape_from_config(uneven_config())
    assert shape == PrunableModel(copy.deepcopy(uneven)).shape
    assert shape.widths("attn") == (0, 32, 64, 0, 32)
    assert shape.widths("mlp") == (44, 20, 0, 0, 44)
    assert [layer.attn.group_width for layer in shape.layers if layer.attn] == [16, 16, 16]
    assert shape.total_params == sum(p.numel() for p in uneven.parameters())
    blocks = {"attn": "self_attn", "mlp": "mlp"}
    for index, layer in enumerate(uneven.model.layers):
        for kind in BLOCK_KINDS:
            body = getattr(layer, blocks[kind], None)
            block = shape.block(kind, index)
            assert (block is None) == (body is None)
            if block:
                assert block.params == sum(p.numel() for p in body.parameters())


def test_a_wrapped_model_of_layers_that_differ_is_the_stock_model(
    uneven: PreTrainedModel, ids: Tensor
) -> None:
    wrapped = PrunableModel(copy.deepcopy(uneven)).model
    assert torch.equal(logits(wrapped, ids), logits(uneven, ids))


def test_any_piece_of_layers_that_differ_can_go(uneven: PreTrainedModel, ids: Tensor) -> None:
    assert_each_piece_can_go(uneven, ids)


def test_layers_that_differ_can_lose_all_they_have_step_by_step(
    uneven: PreTrainedModel, ids: Tensor
) -> None:
    model = PrunableModel(copy.deepcopy(uneven))
    there = len(model.blocks)
    while left := moves(model.state):
        model.prune_to(model.state.without(left[len(left) // 2]))
        expected = logits(oracle(uneven, model.state), ids)
        assert_close(logits(model.model, ids), expected, rtol=1e-6, atol=1e-6)
        cached, _ = cached_logits(model.model, ids, 11)
        assert_close(cached, expected, rtol=1e-6, atol=1e-6)
        physical = sum(parameter.numel() for parameter in model.model.parameters())
        norms = (there - len(model.blocks)) * SIZES["hidden_size"]  # they stay in the count
        assert physical == model.state.params - norms
    assert model.state.params == model.shape.params_outside_blocks
    assert model.blocks == []


def test_reordering_layers_that_differ_leaves_the_function_unchanged(
    uneven: PreTrainedModel, ids: Tensor
) -> None:
    model = PrunableModel(copy.deepcopy(uneven))
    model.reorder()
    assert_close(logits(model.model, ids), logits(uneven, ids), rtol=1e-6, atol=1e-6)
    down = model.blocks[0].body.down_proj.weight
    assert not torch.equal(down, uneven.model.layers[0].mlp.down_proj.weight)


def test_layers_that_differ_are_scored_as_the_silenced_model_scores(
    uneven: PreTrainedModel,
) -> None:
    generator = torch.Generator().manual_seed(2)
    windows = Windows(torch.randint(SIZES["vocab_size"], (3, 12), generator=generator), eos_id=7)
    start = PrunableModel(copy.deepcopy(uneven)).state
    for removal in (None, Candidate(ATTN, 1, 0), Candidate(MLP, 0, 0)):
        model = PrunableModel(copy.deepcopy(uneven))
        model.prune_to(start if removal is None else start.without(removal))
        candidates = moves(model.state)
        losses = OnePass(0.5).losses(model, candidates, windows, lambda _: None)
        expected = [plain_losses(uneven, model.state.without(c), windows) for c in candidates]
        assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def plain_losses(dense: PreTrainedModel, state: PruningState, windows: Windows) -> Sequence[float]:
    """Mean loss of each window, from the definition, through the stock model's forward pass."""
    stock = oracle(dense, state)
    means = []
    for row in windows.ids:
        log_probabilities = logits(stock, row[None])[0].log_softmax(dim=-1)
        counted = [(i, t) for i, t in enumerate(row[1:].tolist()) if t != windows.eos_id]
        means.append(-math.fsum(float(log_probabilities[i, t]) for i, t in counted) / len(counted))
    return means


def test_layers_that_differ_are_loaded_from_their_files(
    uneven: PreTrainedModel, ids: Tensor, tmp_path: Path
) -> None:
    uneven.to(torch.float32).save_pretrained(tmp_path)
    source = locate(str(tmp_path), None, None)
    model = load(source, "float32", "cpu", "sdpa")
    assert model.shape == source.shape == shape_from_config(uneven_config())
    assert_close(logits(model.model, ids), logits(uneven, ids))
    assert (source.vocabulary_size, source.context_length) == (61, 128)


def test_a_shape_is_made_once_for_a_source(
    uneven: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uneven.save_pretrained(tmp_path)
    source = locate(str(tmp_path), None, None)
    made: list[PretrainedConfig] = []

    def counted(config: PretrainedConfig) -> ModelShape:
        made.append(config)
        return shape_from_config(config)

    monkeypatch.setattr(prunable, "shape_from_config", counted)
    assert source.shape is source.shape
    assert len(made) == 1


def test_modules_that_are_not_as_wide_as_described_are_refused(uneven: PreTrainedModel) -> None:
    uneven.model.layers[4].mlp = uneven.model.layers[1].mlp
    said = "gate_proj in the MLP of layer 4 has 20 channels where the configuration says 44"
    with pytest.raises(ConfigError, match=said):
        PrunableModel(uneven)


# A language model inside another


def gemma3_config() -> Gemma3Config:
    text = SIZES | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 5}
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 28,
    }
    return Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=60
    )


def test_any_piece_of_a_nested_language_model_can_go(build: Build, ids: Tensor) -> None:
    dense = build(gemma3_config())
    model = PrunableModel(copy.deepcopy(dense))
    assert model.shape.total_params == sum(p.numel() for p in dense.parameters())
    sizes = (model.hidden_size, model.vocabulary_size, model.context_length)
    assert sizes == (32, 61, 128)
    assert_each_piece_can_go(dense, ids % 60)


@pytest.mark.parametrize(("name", "inputs"), [
    ("gemma3", {"token_type_ids": [[0, 0, 1, 1, 1, 1, 0, 0]]}),
    ("mistral3", {"image_sizes": [[64, 64]]}),
])  # fmt: skip
def test_what_sees_goes_on_seeing(
    name: str, inputs: dict[str, list[list[int]]], ids: Tensor, tmp_path: Path
) -> None:
    dense = stock(name)
    model = PrunableModel(copy.deepcopy(dense))
    model.prune_to(replace(model.state, removed_attn=(0,), removed_mlp=(2,)))
    seen = torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()
    prompt = ids[:1, :8] % 60
    prompt[:, 2:6] = 60  # four tokens of an image
    given = {"input_ids": prompt, **{key: torch.tensor(each) for key, each in inputs.items()}}
    packed = PackedModel.of(model, copy.deepcopy(dense.config))
    hf.write_folder(packed, NO_TOKENIZER, tmp_path, torch.float64, 10**9)
    opened = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float64, trust_remote_code=True
    )
    with torch.no_grad():
        one, other = (model.model(pixel_values=image, **given).logits for image in seen)
        for same in (oracle(dense, model.state), opened):
            assert_close(same(pixel_values=seen[0], **given).logits, one, rtol=1e-6, atol=1e-6)
    assert (one - other).abs().max() > 1e-3


# What cannot be removed


def test_a_family_says_what_it_cannot_lose_and_why(build: Build) -> None:
    model = PrunableModel(build(Phi3Config(**SIZES | {"pad_token_id": 0})))
    shape = model.shape
    dense = PruningState.dense(shape)
    assert dense.candidates(HEADS, 16) == []
    assert dense.candidates(BLOCKS, None)
    assert dense.candidates(MLP_CHANNELS, 7)
    narrowed = dense.to_pruning_config() | {"pruned_attn_width": {str(i): 16 for i in range(4)}}
    without_first = replace(dense, removed_attn=(0,))
    model.prune_to(without_first)
    first, *_ = PackedModel.of(model, model.model.config).layers
    assert first.heads == (4, 2), "what stands for a lost attention has all heads, too"
    with pytest.raises(ConfigError, match="allowed is 32: its attention reads the number of heads"):
        PruningState.from_pruning_config(shape, narrowed)


@pytest.mark.parametrize("flag", ["use_parallel_residual", "qk_layernorm"])
def test_a_configuration_whose_blocks_are_others_is_refused(flag: str) -> None:
    config = config_of("stablelm")
    family = FAMILIES["stablelm"]
    assert len(family.describe(config)) == config.num_hidden_layers
    setattr(config, flag, True)
    with pytest.raises(ConfigError, match=f"model.path: its configuration has {flag}: "):
        family.describe(config)
