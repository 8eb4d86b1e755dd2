"""Decoding step by step on the same tensors: the same tokens and logits as the plain way."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from support_families import FAMILIES, stock, tolerance
from transformers import MistralConfig, Qwen2Config

from pipeline.measure.graphs import Decoding, NumbersAreFilled, captured
from pipeline.models.families import family_of
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.units import ATTN, ATTN_WIDTH

STEPS = 9
ASKS_THE_DEVICE = {"phi3_longrope"}
"""Families whose code asks for a value, here how long the text is: their record says eager."""
WITHIN = {
    torch.float64: {"rtol": 1e-6, "atol": 1e-6},  # some kernels compute in float32 inside
    torch.float32: {"rtol": 1.3e-6, "atol": 1e-5},
    torch.bfloat16: {"rtol": 0.016, "atol": 1e-5},
}
REMOVED = [
    {},
    {"attn": (0,), "mlp_widths": {1: 20}},
    {"attn": (2,), "mlp": (0, 2), "attn_widths": {1: 16}},
    {"attn": (0, 1, 2)},
]


def prompts(model: PrunableModel, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(model.vocabulary_size, (2, tokens), generator=generator)
    return ids.to(model.device)


@torch.no_grad()
def plainly(model: PrunableModel, ids: torch.Tensor) -> tuple[list, list]:
    """Tokens and logits of greedy decoding with the cache that grows."""
    cache, tokens, logits = None, [], []
    for _ in range(1 + STEPS):
        out = model.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids, cache = out.logits[:, -1:].argmax(dim=-1), out.past_key_values
        tokens.append(ids.tolist())
        logits.append(out.logits)
    return tokens, logits


@torch.no_grad()
def started(model: PrunableModel, ids: torch.Tensor) -> Decoding:
    out = model.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    return Decoding(model, out.past_key_values, out.logits[:, -1:].argmax(dim=-1), STEPS + 1)


def assert_the_same(
    decoding: Decoding,
    advance: Callable[[], object],
    tokens: list,
    logits: list,
    within: dict[str, float] | None = None,
) -> None:
    """Every step from the start, as ``plainly`` took it."""
    within = within or WITHIN[logits[0].dtype]
    decoding.rewind()
    for step in range(1, 1 + STEPS):
        advance()
        assert decoding.logits is not None
        torch.testing.assert_close(decoding.logits, logits[step], **within)
        assert decoding.token.tolist() == tokens[step]


@pytest.mark.parametrize("removed", REMOVED)
def test_every_step_is_that_of_the_plain_way(pruned, removed) -> None:
    model = pruned(**removed)
    ids = prompts(model, 7)
    tokens, logits = plainly(model, ids)
    decoding = started(model, ids)
    for _ in range(2):  # a second time after being rewound
        assert_the_same(decoding, decoding.step, tokens, logits)


ALL_SLIDING = partial(MistralConfig, sliding_window=12)
LAST_SLIDING = partial(Qwen2Config, use_sliding_window=True, sliding_window=12, max_window_layers=2)


@pytest.mark.parametrize("family", [ALL_SLIDING, LAST_SLIDING])
@pytest.mark.parametrize("prompt_tokens", [3, 11, 12, 20])
def test_sliding_windows_below_across_and_full(build, family, prompt_tokens) -> None:
    model = build(family)
    ids = prompts(model, prompt_tokens)
    tokens, logits = plainly(model, ids)
    decoding = started(model, ids)
    assert_the_same(decoding, decoding.step, tokens, logits)


def test_a_full_window_takes_no_more_room(build) -> None:
    model = build(ALL_SLIDING)
    decoding = started(model, prompts(model, 20))
    assert {layer.keys.shape[-2] for layer in decoding._layers} == {12}


def test_numbers_are_filled_where_the_device_is_asked_for_nothing() -> None:
    with NumbersAreFilled(torch.device("meta")):
        window, floor = torch.tensor(3), torch.tensor(0.5, dtype=torch.float64, device="cpu")
        listed = torch.tensor([3])
    assert (window.device.type, window.dtype, window.shape) == ("meta", torch.int64, ())
    assert (floor.item(), floor.dtype) == (0.5, torch.float64)
    assert listed.device.type == "cpu"


def of_family(name: str, dtype: torch.dtype = torch.float32) -> PrunableModel:
    """A model of the family that lost its first attention and a head of the next."""
    model = PrunableModel(stock(name, dtype))
    state, heads = model.state, model.blocks[0].channels.group_width
    for unit in (ATTN, ATTN_WIDTH):
        for first in state.candidates((unit,), heads)[:1]:
            state = state.without(first)
    model.prune_to(state)
    return model


@pytest.mark.parametrize("prompt_tokens", [3, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_of_every_family_is_that_of_the_plain_way(name, prompt_tokens) -> None:
    model = of_family(name, torch.float64)
    ids = prompts(model, prompt_tokens)
    tokens, logits = plainly(model, ids)
    decoding = started(model, ids)
    within = {"rtol": tolerance(name), "atol": tolerance(name)}
    for _ in range(2):
        assert_the_same(decoding, decoding.step, tokens, logits, within)


def replays(model: PrunableModel) -> None:
    """Check on the GPU that replayed steps are those of the plain way."""
    model.model.to("cuda")
    ids = prompts(model, 7)
    tokens, logits = plainly(model, ids)
    first: list[torch.Tensor] = []

    def prefill() -> None:
        out = model.model(input_ids=ids, use_cache=True, logits_to_keep=1)
        first[:] = [out.logits]

    with torch.no_grad():
        captured(prefill, lambda: None, ids.device).replay()
    torch.testing.assert_close(first[0], logits[0])
    decoding = started(model, ids)
    with torch.no_grad():
        graph = captured(decoding.step, decoding.rewind, ids.device)
    for _ in range(2):
        assert_the_same(decoding, graph.replay, tokens, logits)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("removed", REMOVED)
def test_replayed_steps_are_the_same(pruned, removed) -> None:
    replays(pruned(**removed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FAMILIES)
def test_replayed_steps_of_every_family_are_the_same(name) -> None:
    is_mixture = family_of(FAMILIES[name][0]).mixture  # whose kernel asks nothing in bfloat16 alone
    model = of_family(name, torch.bfloat16 if is_mixture else torch.float32)
    if name in ASKS_THE_DEVICE:
        with pytest.raises(RuntimeError, match="captur"):
            replays(model)
    else:
        replays(model)
