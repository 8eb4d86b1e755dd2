"""Tiny random models to measure. No test asserts how fast anything is."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from pipeline.models.prunable import PrunableModel

VOCABULARY = 110
LAYERS = 3
HEAD_DIM = 8
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

Build = Callable[..., PrunableModel]
Pruned = Callable[..., PrunableModel]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _built(
    family: type[PretrainedConfig] = LlamaConfig,
    dtype: torch.dtype = torch.float32,
    **sizes: object,
) -> PrunableModel:
    model = AutoModelForCausalLM.from_config(family(**SIZES | sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)
    return PrunableModel(model.to(dtype))


@pytest.fixture
def build() -> Build:
    """Makes the same model every time, of a family and dtype, with sizes of its configuration."""
    return _built


@pytest.fixture
def pruned() -> Pruned:
    """Makes that model with blocks removed, and others narrowed to a width by layer."""

    def prune(
        attn: tuple[int, ...] = (),
        mlp: tuple[int, ...] = (),
        attn_widths: dict[int, int] | None = None,
        mlp_widths: dict[int, int] | None = None,
        **settings: object,
    ) -> PrunableModel:
        model = _built(**settings)
        state = replace(
            model.state,
            removed_attn=attn,
            removed_mlp=mlp,
            attn_widths=_changed(model.state.attn_widths, attn_widths or {}),
            mlp_widths=_changed(model.state.mlp_widths, mlp_widths or {}),
        )
        model.prune_to(state)
        return model

    return prune


def _changed(widths: tuple[int, ...], new: dict[int, int]) -> tuple[int, ...]:
    return tuple(new.get(layer, width) for layer, width in enumerate(widths))
