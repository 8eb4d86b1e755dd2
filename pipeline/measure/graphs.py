"""Prefill and decoding as CUDA graphs: the device's own time, without waiting for Python.

A graph repeats the same operations on the same memory. So the KV cache has all its room from the
start, and the position of the next token is a tensor that every step moves on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, StaticLayer

from pipeline.models.prunable import PrunableModel

WARMUP_CALLS = 1
"""Before a capture, so that libraries allocate what they need outside of it."""


class Decoding:
    """Greedy decoding from a filled cache, every step the same operations on the same tensors."""

    def __init__(self, model: PrunableModel, cache: Cache, token: Tensor, room: int) -> None:
        """``cache`` holds the prompts; it is emptied. ``token`` follows them, ``[batch, 1]``."""
        self._model = model.model
        self._start, self._first = cache.get_seq_length(), token
        self._token, self._position = token.clone(), torch.full_like(token, self._start)
        self._layers = [_roomy(layer, room) for layer in cache.layers]
        self._cache = Cache(layers=list(self._layers))
        self.logits: Tensor | None = None
        """Of the last step, ``[batch, 1, vocabulary]``."""

    def rewind(self) -> None:
        """Behind the prompts again; what was decoded is written over."""
        self._token.copy_(self._first)
        self._position.fill_(self._start)
        for layer in self._layers:
            if isinstance(layer, _Roomy):
                layer.rewind()

    @torch.no_grad()
    def step(self) -> None:
        """Decode one token for every sequence."""
        out = self._model(
            input_ids=self._token,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits = out.logits
        self._token.copy_(out.logits[:, -1:].argmax(dim=-1))
        self._position.add_(1)

    @property
    def token(self) -> Tensor:
        """The last one that was decoded, ``[batch, 1]``."""
        return self._token


def captured(
    work: Callable[[], object], rewind: Callable[[], None], device: torch.device
) -> torch.cuda.CUDAGraph:
    """``work`` as a graph, to be replayed. ``rewind`` makes it possible to do it again.

    Raises whatever ``work`` raises where it cannot be captured: it asks the device for a value.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream), NumbersAreFilled(device):
        for _ in range(WARMUP_CALLS):
            rewind()
            work()
        rewind()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), NumbersAreFilled(device):
        work()
    rewind()
    return graph


class NumbersAreFilled(TorchFunctionMode):
    """Numbers become tensors on a device by an operation there.

    ``torch.tensor`` copies them from memory that a capture does not know. Caches with sliding
    windows and masks of families with their own kernels do so in every call.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and args and isinstance(args[0], bool | int | float):
            return torch.full((), args[0], **{"device": self._device, **kwargs})
        return func(*args, **kwargs)


class _Roomy(StaticLayer):  # type: ignore[misc]  # transformers is not typed here
    """Keys and values of one attention: those of the prompts, and room for what is decoded."""

    def __init__(self, filled: DynamicLayer, slots: int, next_slot: int) -> None:
        super().__init__(max_cache_len=slots)
        self.is_sliding = filled.is_sliding
        self.dtype, self.device = filled.dtype, filled.device
        self.keys, self.values = (_with_room(each, slots) for each in (filled.keys, filled.values))
        self.is_initialized = True
        self._next = next_slot
        self.cumulative_length = torch.tensor(next_slot, device=self.device)
        filled.keys = filled.values = None

    def rewind(self) -> None:
        self.cumulative_length.fill_(self._next)


class _FilledWindow(_Roomy):
    """A sliding window that stays full: the newest token takes the slot of the oldest."""

    def __init__(self, filled: DynamicLayer, slots: int, next_slot: int) -> None:
        super().__init__(filled, slots, next_slot)
        self._prompts = self.keys.clone(), self.values.clone()

    def rewind(self) -> None:
        super().rewind()
        for states, of_prompts in zip((self.keys, self.values), self._prompts, strict=True):
            states.copy_(of_prompts)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        slot = (self.cumulative_length % self.max_cache_len).view(1)
        self.cumulative_length.add_(1)
        self.keys.index_copy_(2, slot, key_states)
        self.values.index_copy_(2, slot, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Such that the mask lets the next token see every slot."""
        seen: int = self.max_cache_len - 1
        return seen


def _roomy(layer: CacheLayerMixin, room: int) -> CacheLayerMixin:
    """The layer with ``room`` for further tokens. One that no attention uses stays as it is."""
    if not layer.is_initialized:
        return layer
    if not isinstance(layer, DynamicLayer):
        raise TypeError(f"there is no way to give room to a {type(layer).__name__}")
    filled = layer.keys.shape[-2]
    window = getattr(layer, "sliding_window", None)
    # a full window keeps the tokens before the next one, which is part of the window itself
    if window is not None and filled == window - 1 < layer.get_seq_length():
        return _FilledWindow(layer, window, filled)
    return _Roomy(layer, filled + room, filled)


def _with_room(filled: Tensor, slots: int) -> Tensor:
    batch, heads, tokens, channels = filled.shape
    whole = filled.new_zeros(batch, heads, slots, channels)
    whole[:, :, :tokens] = filled
    return whole
