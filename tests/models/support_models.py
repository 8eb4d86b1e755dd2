"""What the tiny models of these tests have in common."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""Four layers, and no end of sequence, so that generation never stops by itself."""


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Of every token, in one pass without a cache."""
    whole: Tensor = model(input_ids=ids, use_cache=False).logits
    return whole


@torch.no_grad()
def cached_logits(
    model: PreTrainedModel, ids: Tensor, prompt: int, cache: DynamicCache | None = None
) -> tuple[Tensor, DynamicCache]:
    """Of every token: a prefill of ``prompt`` tokens, then one token at a time."""
    out = model(input_ids=ids[:, :prompt], past_key_values=cache, use_cache=True)
    parts = [out.logits]
    for token in ids[:, prompt:].split(1, dim=1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        parts.append(out.logits)
    return torch.cat(parts, dim=1), out.past_key_values
