"""The folder for vLLM, SGLang and TensorRT-LLM, read as their loaders read it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support_export import CONFIGS, NO_TOKENIZER
from test_hf import SEEDS, Packed, assert_same, logits_of
from transformers import AutoConfig

from pipeline.export import vllm
from pipeline.models import modelling
from pipeline.models.packing import PackedModel

NAMES = ("llama", "llama_mha")


def exported(packed: PackedModel, folder: Path) -> Path:
    vllm.write_folder(packed, NO_TOKENIZER, folder, torch.float32, 10**9)
    return folder


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_weights_that_the_loader_asks_for(
    packed: Packed, tmp_path: Path, name: str, seed: int
) -> None:
    model = packed(name, seed)
    folder = exported(model, tmp_path)
    values = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    assert shapes == vllm.expected(values, model.family)
    assert not values["block_configs"][0]["attention"]["no_op"], "vLLM's first layer needs one"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_the_live_model(
    packed: Packed, ids: torch.Tensor, tmp_path: Path, name: str, seed: int
) -> None:
    """The blocks as the configuration has them, put into transformers' own layers."""
    model = packed(name, seed)
    folder = exported(model, tmp_path)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    llama = CONFIGS[name]()
    llama.allow_global_per_layer_attribute_access = True
    llama.num_hidden_layers = config.num_hidden_layers
    llama.num_attention_heads = config.num_attention_heads
    llama.num_key_value_heads = config.num_key_value_heads
    llama.per_layer_config = {
        index: {
            "intermediate_size": block.ffn.intermediate_size or 1,
            "skip": [part for part, has in (("attention", block.attention), ("mlp", block.ffn))
                     if has.no_op],
        }
        for index, block in enumerate(config.block_configs)
    }  # fmt: skip
    namespace: dict[str, type] = {}
    exec(modelling.source(model.family, "llama"), namespace)  # noqa: S102 - our own file
    loaded = namespace["PrunedLlamaForCausalLM"](llama).eval()
    loaded.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    loaded.tie_weights()
    with torch.no_grad():
        assert_same(loaded(ids, use_cache=False).logits, logits_of(model, ids))


def test_its_configuration_is_read_by_attributes_and_written_again(
    packed: Packed, tmp_path: Path
) -> None:
    folder = exported(packed("llama", removed_attn=(2,), removed_mlp=(3,)), tmp_path)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert [block.attention.no_op for block in config.block_configs] == [False] * 2 + [True] + [
        False
    ] * 2
    again = json.loads(config.to_json_string())
    assert (
        again["block_configs"] == json.loads((folder / "config.json").read_text())["block_configs"]
    )
    assert not hasattr(config.block_configs[0].ffn, "ffn_mult")


def test_heads_that_went_are_there_again_as_zeros(packed: Packed) -> None:
    model = packed("llama", attn_widths=(16, 32, 32, 32, 32))
    assert vllm.zero_heads(model) == 2
    assert vllm.zero_heads(packed("llama", removed_mlp=(1,))) == 0


@pytest.mark.parametrize(
    ("name", "word"),
    [("qwen3", "qwen3"), ("mistral_sliding", "sliding"), ("qwen2_mixed", "sliding")],
)
def test_what_it_cannot_express_is_refused(name: str, word: str) -> None:
    config = CONFIGS[name]()
    reason = vllm.refused(config.model_type, config)
    assert reason
    assert word in reason


@pytest.mark.parametrize("name", NAMES)
def test_what_it_can_express_is_not(name: str) -> None:
    config = CONFIGS[name]()
    assert vllm.refused(config.model_type, config) is None
