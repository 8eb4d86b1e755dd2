"""Tiny random models of every known family, in float64, in which every block matters."""

from collections.abc import Callable, Iterator

import pytest
import torch
from support_models import SIZES
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama_biases_tied": lambda: LlamaConfig(
        **SIZES | {"num_key_value_heads": 4},
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    ),
    "llama_wide_heads": lambda: LlamaConfig(
        **SIZES | {"hidden_size": 48, "num_attention_heads": 6}, head_dim=16
    ),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=None),
    "mistral_sliding": lambda: MistralConfig(**SIZES, sliding_window=5),
    "qwen2_tied": lambda: Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2_mixed": lambda: Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=2
    ),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_model(config: PretrainedConfig) -> PreTrainedModel:
    """Weights far from the usual small start: all of them random, biases and norms too."""
    model = AutoModelForCausalLM.from_config(config).to(torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.normal_(mean, 0.2, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture
def build() -> Callable[[PretrainedConfig | str], PreTrainedModel]:
    """Makes the same model every time, from a configuration or from a name in ``CONFIGS``."""
    return lambda config: random_model(CONFIGS[config]() if isinstance(config, str) else config)


@pytest.fixture(params=sorted(CONFIGS))
def dense(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A stock model of each known family in turn."""
    return random_model(CONFIGS[request.param]())


@pytest.fixture
def ids() -> Tensor:
    """Two sequences of 18 tokens: longer than every sliding window above."""
    return torch.randint(SIZES["vocab_size"], (2, 18), generator=torch.Generator().manual_seed(1))
