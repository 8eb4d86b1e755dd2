"""Bytes of weights and of the KV cache, against the tensors that are really there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor

from pipeline.measure.memory import kv_cache_bytes_per_token, measure_memory, weight_bytes
from pipeline.measure.record import Memory
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import ModelSource

STATES = {
    "dense": {},
    "narrow": {"attn_widths": {0: 16, 2: 16}, "mlp_widths": {1: 20}},
    "without_first_attention": {"attn": (0,), "mlp": (2,)},
    "without_attention": {"attn": (1, 0, 2)},
    "without_blocks": {"attn": (0, 1, 2), "mlp": (0, 1, 2)},
}


@pytest.fixture(params=STATES)
def state(request) -> dict:
    return STATES[request.param]


def cached(model: PrunableModel, tokens: int, sequences: int) -> int:
    """Bytes of the cache that the model itself makes."""
    ids = torch.ones(sequences, tokens, dtype=torch.int64)
    cache = model.model(input_ids=ids, use_cache=True).past_key_values
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_bytes_are_those_of_the_models_own_cache(pruned, state, dtype) -> None:
    model = pruned(**state, dtype=dtype)
    assert kv_cache_bytes_per_token(model) * 2 * 7 == cached(model, tokens=7, sequences=2)


def test_cache_bytes_of_a_known_model(build) -> None:
    keys_and_values, heads, head_dim, layers, float32 = 2, 2, 8, 3, 4
    expected = keys_and_values * heads * head_dim * layers * float32
    assert kv_cache_bytes_per_token(build()) == expected


def test_cache_bytes_fall_with_heads_and_attentions_and_not_with_mlps(pruned) -> None:
    dense = kv_cache_bytes_per_token(pruned())
    assert kv_cache_bytes_per_token(pruned(attn_widths={0: 16})) == dense - dense // 6
    assert kv_cache_bytes_per_token(pruned(attn=(2,))) == dense - dense // 3
    assert kv_cache_bytes_per_token(pruned(mlp=(0,), mlp_widths={1: 8})) == dense
    assert kv_cache_bytes_per_token(pruned(attn=(0, 1, 2))) == 0


def test_a_models_files_tell_the_same_of_any_state(pruned, build, state, tmp_path: Path) -> None:
    build().model.config.save_pretrained(tmp_path)
    live = pruned(**state)
    told = ModelSource(tmp_path, None, None).cached_per_token(live.state)
    assert told * torch.float32.itemsize == kv_cache_bytes_per_token(live)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_bytes_are_what_safetensors_stores(
    pruned, state, dtype, tied, tmp_path: Path
) -> None:
    model = pruned(**state, dtype=dtype, tie_word_embeddings=tied)
    file = tmp_path / "model.safetensors"
    save_model(model.model, str(file))
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    persistent = model.model.state_dict()
    buffers = sum(b.nbytes for n, b in model.model.named_buffers() if n not in persistent)
    assert weight_bytes(model) == file.stat().st_size - header + buffers


def test_every_removal_lowers_the_weight_bytes(pruned) -> None:
    dense = weight_bytes(pruned())
    removals = ({"attn": (1,)}, {"mlp": (1,)}, {"attn_widths": {1: 16}}, {"mlp_widths": {1: 40}})
    for removal in removals:
        assert weight_bytes(pruned(**removal)) < dense


def test_the_record_holds_all_three(build) -> None:
    model = build()
    expected = Memory(weight_bytes(model), kv_cache_bytes_per_token(model), 123)
    assert measure_memory(model, 123) == expected
