"""Faster kernels for the same arithmetic, while candidates are scored.

The live model keeps its own modules: what is measured of it is what a user of the model gets.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from pipeline.models.prunable import PrunableModel

REPEATED_KV = "sdpa_repeated_kv"


@contextmanager
def fast_kernels(model: PrunableModel) -> Iterator[None]:
    """Fused norms; and on a GPU in float32, attention that does not fall back to a slow kernel."""
    norms: list[tuple[object, str, nn.Module]] = [
        (block, "norm_before", block.norm_before) for block in model.blocks
    ]
    norms.append((model, "final_norm", model.final_norm))
    config = model.text_config
    attention = config._attn_implementation
    try:
        for owner, name, norm in norms:
            if _is_plain_rms_norm(norm):
                setattr(owner, name, _FusedRMSNorm(norm))
        if (model.device.type, model.model.dtype, attention) == ("cuda", torch.float32, "sdpa"):
            config._attn_implementation = REPEATED_KV
        yield
    finally:
        config._attn_implementation = attention
        for owner, name, norm in norms:
            setattr(owner, name, norm)


class _FusedRMSNorm(nn.Module):
    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        return rms_norm(hidden, self.weight.shape, self.weight, self.eps)


def _is_plain_rms_norm(norm: nn.Module) -> bool:
    """Whether a norm is ``weight * x / rms(x)``: tried out, once for each class."""
    if not hasattr(norm, "variance_epsilon") or not hasattr(norm, "weight"):
        return False
    known = _PLAIN.get(type(norm))
    if known is None:
        weight = norm.weight
        assert isinstance(weight, Tensor)
        sample = torch.linspace(-2, 3, weight.numel(), device=weight.device, dtype=weight.dtype)
        known = torch.allclose(_FusedRMSNorm(norm)(sample), norm(sample), rtol=1e-2, atol=1e-3)
        _PLAIN[type(norm)] = known
    return known


_PLAIN: dict[type[nn.Module], bool] = {}


def _repeated_kv_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Attention after repeating keys and values: with ``enable_gqa`` float32 has no fast kernel."""
    groups = query.shape[1] // key.shape[1]
    whole = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    return sdpa_attention_forward(whole, query, key, value, *args, **kwargs)


AttentionInterface.register(REPEATED_KV, _repeated_kv_attention)
