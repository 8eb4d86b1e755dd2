"""Bytes that a model takes: its weights, and what it keeps of every token."""

from pipeline.measure.record import Memory
from pipeline.models.families.base import CACHED
from pipeline.models.prunable import PrunableModel


def measure_memory(model: PrunableModel, peak_bytes: int) -> Memory:
    """Memory of the model as it is; ``peak_bytes`` is what ``measure_latency`` saw."""
    return Memory(weight_bytes(model), kv_cache_bytes_per_token(model), peak_bytes)


def weight_bytes(model: PrunableModel) -> int:
    """Bytes of all parameters and buffers of the model as it is, a tied one once."""
    # both iterators give a tensor that stands in several places once
    tensors = [*model.model.parameters(), *model.model.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


def kv_cache_bytes_per_token(model: PrunableModel) -> int:
    """Bytes that the KV cache grows by with one token of one sequence.

    Keys and values of every attention that is left, in the model's dtype. Attention with a sliding
    window stops growing once the window is full.
    """
    return sum(
        block.channels.segment_length(segment, block.width) * next(block.body.parameters()).itemsize
        for block in model.blocks
        if block.kind == "attn"
        for segment in CACHED
    )
