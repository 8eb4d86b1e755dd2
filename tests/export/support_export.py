"""Random states of tiny models of every family, pruned for good."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from pipeline.models.packing import PackedModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import locate
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN, ATTN_WIDTH, MLP, MLP_WIDTH

GOLDEN = ("llama_mha", "llama_gqa", "qwen2_gqa")
NO_TOKENIZER: Any = SimpleNamespace(
    tokenizer_files=[], folder=Path("/nowhere"), gguf_file=None, name="tiny"
)
"""The source of a model that has weights alone."""

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 256, "eos_token_id": None, "bos_token_id": None,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama_mha": lambda: LlamaConfig(
        **SIZES | {"num_key_value_heads": 4}, attention_bias=True, mlp_bias=True
    ),
    "mistral_sliding": lambda: MistralConfig(**SIZES, sliding_window=8),
    "qwen2_mixed": lambda: Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=2
    ),
    "qwen3": lambda: Qwen3Config(**SIZES),
}


def random_state(dense: PruningState, seed: int) -> PruningState:
    """Up to fourteen pieces gone, of any kind, in any order."""
    chosen, state = random.Random(seed), dense
    attn_group = dense.shape.layers[0].attn.group_width  # type: ignore[union-attr]
    for _ in range(chosen.randint(1, 14)):
        pieces = [
            *state.candidates((ATTN, MLP), 0),
            *state.candidates((MLP_WIDTH,), chosen.choice([5, 16])),
            *state.candidates((ATTN_WIDTH,), attn_group),
        ]
        if pieces:
            state = state.without(chosen.choice(pieces))
    return state


def live(config: PretrainedConfig) -> PrunableModel:
    """A model in float32 in which every block matters."""
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(mean, 0.2, generator=generator)
    return PrunableModel(model)


def logits_of(packed: PackedModel, ids: torch.Tensor) -> torch.Tensor:
    """Of the live model, ``[windows, tokens, vocabulary]``."""
    with torch.no_grad():
        logits: torch.Tensor = packed.model.model(ids, use_cache=False).logits
    return logits


@pytest.fixture
def packed() -> Callable[..., PackedModel]:
    """A family's model at a random state, or cut by what is given."""

    def make(name: str, seed: int | None = None, **state: Any) -> PackedModel:
        config = CONFIGS[name]()
        model = live(config)
        dense = PruningState.dense(model.shape)
        cut = random_state(dense, seed) if seed is not None else replace(dense, **state)
        model.prune_to(cut)
        return PackedModel.of(model, config)

    return make


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest, shared: Path) -> PackedModel:
    """A trained tiny model as its recorded run left it."""
    folder = shared / "golden" / request.param
    model = PrunableModel(AutoModelForCausalLM.from_pretrained(folder / "model"))
    dense = locate(str(folder / "model"), None, None).config
    recorded = json.loads((folder / "golden.json").read_text())
    if recorded["weight_reorder"]:
        model.reorder()
    model.prune_to(PruningState.from_pruning_config(model.shape, recorded["pruning_config"]))
    return PackedModel.of(model, copy.deepcopy(dense))


@pytest.fixture(scope="session")
def ids() -> torch.Tensor:
    """Two windows, longer than every sliding window above."""
    return torch.randint(96, (2, 30), generator=torch.Generator().manual_seed(1))
