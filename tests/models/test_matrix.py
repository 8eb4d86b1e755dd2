"""Every known family against an oracle: the stock model with what a candidate removes silenced.

One generated matrix. What one of the families needs beyond it is tested in the other files here.
"""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support_models
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_families import EAGER, config_of, kernels, stock, tolerance
from support_families import FAMILIES as CONFIGURED
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import PreTrainedModel

from pipeline.errors import StageError
from pipeline.export import hf, vllm
from pipeline.export.gguf import architectures
from pipeline.measure.memory import kv_cache_bytes_per_token
from pipeline.models.families import FAMILIES
from pipeline.models.modelling import opener
from pipeline.models.packing import PackedModel
from pipeline.models.prunable import PrunableModel, shape_from_config
from pipeline.pruning.shape import BLOCK_KINDS, BlockKind, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ALL_MLP_CHANNELS, BLOCKS, HEADS, MIXTURES, Candidate
from pipeline.scoring.one_pass import OnePass
from pipeline.scoring.perplexity import Windows

BODIES = {"attn": ("self_attn",), "mlp": ("mlp",)}
OUTPUTS = ("o_proj", "down_proj", "c_proj", "fc2")
"""What families call their blocks in a layer, and the layers inside that give what they add."""
CHANNELS, EXPERTS = 7, 2
MATTERS = 1e-4
"""How far logits move at least when anything goes."""
SWITCHES = {"phi3_longrope"}
"""Whose rotary embeddings change when a sequence grows: the stock model's cache does not follow."""
REFUSE_FEWER_HEADS = {"llama_mha", "phi3_longrope", "olmoe"}
"""Whose configurations, or norms, refuse to have a group of heads less in every layer."""
IDS = torch.randint(60, (2, 14), generator=torch.Generator().manual_seed(1))
"""Longer than windows, and than what rotary embeddings were scaled for. 60 may be an image's."""
PROMPT = 9
NO_TOKENIZER: Any = SimpleNamespace(tokenizer_files=[], folder=Path("/nowhere"), gguf_file=None)
"""The source of a model that has weights alone."""

every_family = pytest.mark.parametrize("name", CONFIGURED)


def candidates(state: PruningState) -> list[Candidate]:
    """Every candidate of every dimension."""
    group = next(layer.attn.group_width for layer in state.shape.layers if layer.attn)
    sizes = ((BLOCKS, None), (ALL_MLP_CHANNELS, CHANNELS), (HEADS, group), (MIXTURES, EXPERTS))
    return [each for units, size in sizes for each in state.candidates(units, size)]


# The oracle: of the stock model alone, by the names that its modules have


def body_of(layer: nn.Module, kind: BlockKind) -> nn.Module:
    return next(m for name, m in layer.named_children() if name in BODIES[kind])


def output_of(body: nn.Module) -> nn.Linear | None:
    """None where it is a mixture of experts."""
    named = dict(body.named_modules())
    return next((named[name] for name in OUTPUTS if name in named), None)  # type: ignore[misc]


def silence(mixture: nn.Module, experts: int, channels: int) -> None:
    """Let the experts of a mixture from ``experts`` on never be taken, and add nothing.

    Of each one left only the ``channels`` with the largest rows of gate and up add anything.
    """
    mixture.experts.down_proj.data[experts:] = 0
    for gate_up, down in zip(mixture.experts.gate_up_proj, mixture.experts.down_proj, strict=True):
        rows = gate_up.abs().sum(dim=1)
        both = (rows[: down.shape[1]] + rows[down.shape[1] :]).tolist()
        smallest_first = sorted(range(len(both)), key=lambda at: both[at])
        down.data[:, smallest_first[: len(both) - channels]] = 0
    router, linear = mixture.gate.forward, nn.functional.linear

    def masked(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear(hidden, weight).index_fill(-1, torch.arange(experts, len(weight)), -torch.inf)

    def forward(hidden: Tensor) -> tuple[Tensor, ...]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.functional, "linear", masked)
            return router(hidden)

    if experts:
        mixture.gate.forward = forward


def silenced(dense: PreTrainedModel, state: PruningState) -> PreTrainedModel:
    """With zeros in the place of channels that ``state`` lacks, and of what removed blocks add."""
    model = copy.deepcopy(dense)
    for index, layer in enumerate(model.get_decoder().layers):
        for kind in BLOCK_KINDS:
            body, width = body_of(layer, kind), state.widths(kind)[index]
            if not width:
                continue
            output = output_of(body)
            is_left = index in state.left(kind)
            if output is None:
                silence(body, width * is_left, state.inside[index])
                continue
            mask = torch.zeros(output.in_features, dtype=output.weight.dtype)
            mask[: width * is_left] = 1
            output.register_forward_pre_hook(lambda _, inputs, mask=mask: (inputs[0] * mask,))
            if not is_left and output.bias is not None:
                output.bias.zero_()
            if kind == "attn" and width < output.in_features:
                norm_over_heads_left(body, width / output.in_features)
    return model


def norm_over_heads_left(attention: nn.Module, share: float) -> None:
    """Let norms over all heads at once see the heads that are left alone."""
    for name in ("q_norm", "k_norm"):
        norm = getattr(attention, name, None)
        if norm is not None and getattr(norm, "weight", torch.ones(0)).numel() > attention.head_dim:
            kept = round(len(norm.weight) * share)

            def of_some(hidden: Tensor, norm: nn.Module = norm, kept: int = kept) -> Tensor:
                some = hidden[..., :kept].float()
                mean = some.pow(2).mean(-1, keepdim=True)
                some = some * torch.rsqrt(mean + norm.variance_epsilon)
                whole = torch.zeros_like(hidden)
                whole[..., :kept] = norm.weight[:kept] * some.to(hidden.dtype)
                return whole

            norm.forward = of_some


def logits(model: PreTrainedModel) -> Tensor:
    return support_models.logits(model, IDS)


def cached_logits(model: PreTrainedModel, prompt: int) -> Tensor:
    return support_models.cached_logits(model, IDS, prompt)[0]


@torch.no_grad()
def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes that one token of one sequence leaves in the cache."""
    layers = model(input_ids=IDS[:1, :1], use_cache=True).past_key_values.layers
    kept = [each for layer in layers if layer.is_initialized for each in (layer.keys, layer.values)]
    return sum(each.nbytes for each in kept)


def losses_of(model: PreTrainedModel) -> Tensor:
    """Mean loss of the next tokens of each window, float64 ``[windows]``, from the definition."""
    found = logits(model).double()[:, :-1].log_softmax(dim=-1)
    return -found.gather(-1, IDS[:, 1:, None])[..., 0].mean(dim=-1)


def live(dense: PreTrainedModel, state: PruningState | None = None) -> PrunableModel:
    model = PrunableModel(copy.deepcopy(dense))
    model.prune_to(state or model.state)
    return model


def assert_same(name: str, ours: Tensor, theirs: Tensor) -> None:
    assert_close(ours, theirs, rtol=tolerance(name), atol=tolerance(name))


def test_every_family_is_in_the_matrix() -> None:
    assert {model_type for model_type, _ in CONFIGURED.values()} == set(FAMILIES)


@every_family
def test_every_candidate_is_scored_as_the_silenced_model_and_goes_as_it_says(name: str) -> None:
    dense = stock(name)
    model, whole = live(dense), logits(dense)
    assert torch.equal(logits(model.model), whole)
    found = candidates(model.state)
    can_go = {"attn", "mlp", "mlp_width", "attn_width"} - {b.unit for b in model.shape.barred}
    assert {each.unit.name for each in found} == can_go | (
        {"experts", "expert_width"} if model.shape.has_mixtures else set()
    )
    expected = []
    for candidate in found:
        state = model.state.without(candidate)
        oracle = silenced(dense, state)
        expected.append(losses_of(oracle))
        left = logits(live(dense, state).model)
        assert_same(name, left, logits(oracle))
        assert (left - whole).abs().max() > MATTERS, candidate
    scored = OnePass(0.5).losses(model, found, Windows(IDS, None), lambda _: None)
    assert_same(name, scored, torch.stack(expected))


def active_of(body: nn.Module) -> int:
    """Parameters that one token passes."""
    if output_of(body):
        return sum(each.numel() for each in body.parameters())
    each, taken = body.experts, body.gate.top_k
    of_one = each.gate_up_proj[0].numel() + each.down_proj[0].numel()
    return body.gate.weight.numel() + taken * of_one


@every_family
def test_parameters_are_counted_as_the_modules_have_them(name: str) -> None:
    dense = stock(name)
    shape = shape_from_config(copy.deepcopy(dense.config))
    assert shape == live(dense).shape
    assert shape.total_params == sum(each.numel() for each in dense.parameters())
    for index, layer in enumerate(dense.get_decoder().layers):
        for kind in BLOCK_KINDS:
            body, block = body_of(layer, kind), shape.block(kind, index)
            output = output_of(body)
            assert block.width == (output.in_features if output else body.experts.num_experts)
            assert block.params == sum(each.numel() for each in body.parameters())
            assert block.active_params_at(block.width) == active_of(body)


@every_family
def test_what_other_engines_have_no_place_for_is_refused_at_once(name: str) -> None:
    config = stock(name).config
    family = FAMILIES[config.model_type]
    if config.model_type not in architectures.UNIFORM:
        source: Any = SimpleNamespace(architecture=config.model_type, family=family, config=config)
        (problem,) = architectures.problems(source)
        assert "take export=hf" in problem
    if config.model_type not in vllm.QKV_BIAS:
        assert "take export=hf" in str(vllm.refused(config.model_type, family.text(config)))


@every_family
def test_eager_attention_is_asked_for_where_transformers_has_no_other(name: str) -> None:
    assert (name in EAGER) == (not stock(name)._supports_sdpa)


@every_family
def test_flags_of_biases_give_every_linear_layer_one(name: str) -> None:
    config = config_of(name)
    family = FAMILIES[config.model_type]
    for flag in family.bias_flags:
        setattr(config, flag, True)
    with torch.device("meta"):
        blocks = PrunableModel(opener(config).from_config(config)).blocks
    if family.bias_flags:
        assert all(linear.bias is not None for block in blocks for linear in block.linears)


def walks(shape: ModelShape, chosen: random.Random) -> Iterator[PruningState]:
    """States on the way to a random one, each some pieces after the one before."""
    state = PruningState.dense(shape)
    for _ in range(3):
        for _ in range(chosen.randint(1, 4)):
            if found := candidates(state):
                state = state.without(chosen.choice(found))
        yield state


@settings(
    derandomize=True, database=None, deadline=None, max_examples=3,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(seed=st.integers(0, 2**32))
@every_family
def test_random_states(name: str, seed: int) -> None:
    """Cut one after the other; with a cache; counted; in another order; brought as it runs."""
    dense = stock(name)
    model, streamed = live(dense), live(dense)
    streamed.offload(torch.device("cpu"), "cpu")
    norms = [sum(p.numel() for p in block.parameters()) - block.shape().params
             for block in model.blocks]  # fmt: skip
    norms_of = dict(zip([block.name for block in model.blocks], norms, strict=True))
    for state in walks(model.shape, random.Random(seed)):
        model.prune_to(state)
        streamed.prune_to(state)
        oracle = silenced(dense, state)
        expected, found = logits(oracle), logits(model.model)
        assert_same(name, found, expected)
        assert torch.equal(logits(streamed.model), found)
        kept = {block.name for block in model.blocks}
        physical = sum(each.numel() for each in model.model.parameters())
        assert physical == state.params - sum(norms_of[name] for name in norms_of.keys() - kept)
        theirs = cached_logits(oracle, PROMPT) if name in SWITCHES else expected
        assert_same(name, cached_logits(model.model, PROMPT), theirs)
    theirs = cached_logits(oracle, 1) if name in SWITCHES else expected
    assert_same(name, cached_logits(model.model, 1), theirs)
    assert cache_bytes(model.model) == kv_cache_bytes_per_token(model)
    if found := candidates(state)[::3]:
        scored = OnePass(0.5).losses(model, found, Windows(IDS, None), lambda _: None)
        without = [losses_of(silenced(dense, state.without(each))) for each in found]
        assert_same(name, scored, torch.stack(without))
    model.reorder()
    assert_same(name, logits(model.model), expected)


EXPORTED: dict[str, set[tuple[str, int]]] = {
    "alike": {
        (unit, layer)
        for unit in ("attn_width", "mlp_width", "experts", "expert_width")
        for layer in range(3)
    },
    "moved up": {
        ("attn", 0),
        ("mlp", 0),
        ("mlp", 1),
        ("attn_width", 1),
        ("mlp_width", 2),
        ("experts", 2),
        ("expert_width", 1),
        ("expert_width", 2),
    },
    "without the first": {("attn", 0), ("attn", 1), ("attn_width", 2)},
    "with zeros": {
        ("attn", 0),
        ("mlp", 1),
        ("attn_width", 1),
        ("mlp_width", 2),
        ("expert_width", 2),
    },
}
"""What goes of layers: an ordinary model; layers where others were; a layer that lost its first;
zeros where something went, which is an ordinary model again."""


@pytest.mark.parametrize("gone", EXPORTED)
@every_family
def test_what_is_exported_answers_as_the_live_model_and_can_be_cut_again(
    name: str, gone: str, tmp_path: Path
) -> None:
    dense = stock(name)
    model = live(dense)
    state = model.state
    for each in candidates(state):
        if (each.unit.name, each.layer) in EXPORTED[gone]:
            state = state.without(each)
    model.prune_to(state)
    packed = PackedModel.of(model, copy.deepcopy(dense.config))
    if gone == "with zeros":
        if model.family.why_no_zeros:
            with pytest.raises(StageError, match=r"export\.pad: q_norm and k_norm of these models"):
                packed.padded(BLOCK_KINDS, whole=True)
            return
        packed = packed.padded(BLOCK_KINDS, whole=True)
    hf.write_folder(packed, NO_TOKENIZER, tmp_path, torch.float64, 10**9)
    opened, info = getattr(transformers, packed.opens_with).from_pretrained(
        tmp_path, dtype=torch.float64, trust_remote_code=True, output_loading_info=True,
        **kernels(name, torch.float64),
    )  # fmt: skip
    assert not {key: wrong for key, wrong in info.items() if wrong and key.endswith("_keys")}
    is_ordinary = opened.config.model_type == dense.config.model_type
    assert is_ordinary == (not packed.needs_code)
    refused = gone == "alike" and name in REFUSE_FEWER_HEADS
    assert is_ordinary == (gone in ("alike", "with zeros") and not refused)
    assert_same(name, logits(opened), logits(model.model))
    if name not in SWITCHES:
        assert_same(name, cached_logits(opened, PROMPT), logits(opened))
    opened.requires_grad_(False)
    again = live(opened)
    again.prune_to(again.state.without(random.Random(name).choice(candidates(again.state))))
    assert_same(name, logits(again.model), logits(silenced(opened, again.state)))
