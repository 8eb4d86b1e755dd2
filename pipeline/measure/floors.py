"""What the device itself allows: how fast it moves bytes and multiplies matrices, measured."""

import time
from collections.abc import Callable
from functools import cache
from statistics import median

import torch
from torch import Tensor, nn

from pipeline.measure.memory import kv_cache_bytes_per_token
from pipeline.measure.record import Floor
from pipeline.models.prunable import PrunableModel

ROUNDS = 7
COPIED_BYTES = {"cuda": 2**30, "cpu": 2**27}
MATRIX_WIDTH = {"cuda": 8192, "cpu": 1024}


def floor_of(model: PrunableModel, batch: int, prompt_tokens: int, output_tokens: int) -> Floor:
    """The least time that prefill and a decoding step can take on this device.

    Weights (of the embeddings only what is multiplied) and the cache are read once, at the measured
    copy bandwidth; or all multiplications are done, at the measured rate of a large matrix product:
    whichever takes longer. Caches of the processor can beat it where a whole model fits into them.
    Of a mixture one token's experts are read: all tokens may take the same.
    """
    weights = list(_multiplied(model))
    of_experts = sum(block.expert_entries for block in model.blocks)
    parameters = sum(weight.numel() for weight in weights) + of_experts
    weight_bytes = sum(weight.nbytes for weight in weights) + of_experts * weights[0].itemsize
    head = model.model.get_output_embeddings().weight.numel()
    cached = prompt_tokens + output_tokens / 2
    cache_bytes = batch * cached * kv_cache_bytes_per_token(model)
    queries = sum(block.width for block in model.blocks if block.kind == "attn")
    # every token of a prompt meets half of it; keys and values are both multiplied with
    attended = 4 * batch * queries * prompt_tokens * prompt_tokens / 2
    prompts = batch * prompt_tokens
    prefill_flops = 2 * (prompts * (parameters - head) + batch * head) + attended
    decode_flops = 2 * batch * parameters + 4 * batch * queries * cached
    bandwidth, rate = _bandwidth(model.device), _rate(model.device, weights[0].dtype)
    return Floor(
        prefill_ms=1e3 * max(weight_bytes / bandwidth, prefill_flops / rate),
        decode_ms=1e3 * max((weight_bytes + cache_bytes) / bandwidth, decode_flops / rate),
    )


def _multiplied(model: PrunableModel) -> "list[Tensor]":
    linear = [module for module in model.model.modules() if isinstance(module, nn.Linear)]
    return [module.weight for module in linear]


@cache
def _bandwidth(device: torch.device) -> float:
    """Bytes that are read or written in a second while a large tensor is copied."""
    source = torch.ones(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(device, lambda: target.copy_(source))


@cache
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Additions and multiplications in a second of a large matrix product."""
    width = MATRIX_WIDTH[device.type]
    left = torch.ones(width, width, dtype=dtype, device=device)
    return 2 * width**3 / _seconds(device, lambda: left @ left)


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """The median of some rounds, after one that is not counted."""
    taken = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return median(taken[1:])
