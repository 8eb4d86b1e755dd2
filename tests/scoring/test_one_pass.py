"""Exact scores against the forward pass of a model that each candidate was really removed from."""

import copy
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel

from pipeline.errors import StageError
from pipeline.models.loading import load
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import locate
from pipeline.pruning.phases import STANDARD
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import (
    ATTN,
    ATTN_WIDTH,
    BLOCKS,
    HEADS,
    LAYER,
    LAYERS,
    MLP,
    MLP_CHANNELS,
    MLP_WIDTH,
    Candidate,
)
from pipeline.scoring import one_pass as one_pass_module
from pipeline.scoring import perplexity as perplexity_module
from pipeline.scoring.memory import Budget
from pipeline.scoring.one_pass import OnePass, Tile, perplexity
from pipeline.scoring.perplexity import Windows, perplexity_of_losses, scored
from pipeline.settings.section import BUILTIN

CLOSE = 1e-5  # the loss is taken in float32
EOS = 3
SIZES = {
    "vocab_size": 41,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama_gqa": lambda: LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "mistral_sliding": lambda: MistralConfig(**SIZES, sliding_window=4),
}


@pytest.fixture(params=CONFIGS)
def dense(request: pytest.FixtureRequest) -> PreTrainedModel:
    return random_model(request.param)


@pytest.fixture
def llama() -> PreTrainedModel:
    return random_model("llama_gqa")


@pytest.fixture
def windows() -> Windows:
    """Five windows of 12 tokens, with a different number of ends of sequence in each."""
    ids = torch.randint(4, 41, (5, 12), generator=torch.Generator().manual_seed(1))
    for row, ends in enumerate(([], [4], [1, 7], [0, 5, 11], [2, 3, 6, 10])):
        ids[row, ends] = EOS
    return Windows(ids, EOS)


def random_model(name: str) -> PreTrainedModel:
    """Random weights so large that every block and every group of channels matters."""
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).to(torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter_name, parameter in model.requires_grad_(False).named_parameters():
        mean = 1.0 if parameter_name.endswith("norm.weight") else 0.0
        parameter.normal_(mean, 0.2, generator=generator)
    return model


def all_candidates(state: PruningState) -> list[Candidate]:
    return [
        *state.candidates(BLOCKS, 0),
        *state.candidates(LAYERS, 0),
        *state.candidates(MLP_CHANNELS, 8),
        *state.candidates(HEADS, state.shape.layers[0].attn.group_width),
    ]


def scores(
    model: PrunableModel,
    candidates: Sequence[Candidate],
    windows: Windows,
    one_pass: OnePass | None = None,
) -> list[float | None]:
    losses = (one_pass or OnePass(0.5)).losses(model, candidates, windows, lambda _: None)
    found = scored(candidates, losses)
    assert [s.candidate for s in found] == list(candidates)
    return [s.score for s in found]


def room_for(sequences: int, rows: int = 1) -> Callable[..., Budget]:
    """Stands for memory that holds so many sequences, and caches that hold so many rows."""
    return lambda *_: Budget(sequences, rows)


@torch.no_grad()
def plain_perplexity(model: PreTrainedModel, windows: Windows) -> float:
    """From the definition, token by token, through the model's own forward pass."""
    means = []
    for row in windows.ids:
        log_probabilities = model(row[None]).logits[0].log_softmax(dim=-1)
        losses = [
            -float(log_probabilities[position, target])
            for position, target in enumerate(row[1:].tolist())
            if target != windows.eos_id
        ]
        means.append(sum(losses) / len(losses))
    return math.exp(sum(means) / len(means))


def pruned(dense: PreTrainedModel, state: PruningState) -> PrunableModel:
    model = PrunableModel(copy.deepcopy(dense))
    model.prune_to(state)
    return model


def state_after(dense: PreTrainedModel, *removals: Candidate) -> PruningState:
    state = PrunableModel(copy.deepcopy(dense)).state
    for removal in removals:
        state = state.without(removal)
    return state


START = {
    "dense": [],
    "first_attention_gone": [Candidate(ATTN, 0, 0), Candidate(MLP, 1, 0)],
    "all_attentions_gone": [Candidate(ATTN, layer, 0) for layer in range(3)],
    "one_block_left": [
        *(Candidate(ATTN, layer, 0) for layer in range(3)),
        *(Candidate(MLP, layer, 0) for layer in range(2)),
    ],
    "already_narrow": [
        Candidate(MLP, 0, 0),
        Candidate(MLP_WIDTH, 1, 9),
        Candidate(MLP_WIDTH, 2, 16),
        Candidate(ATTN_WIDTH, 1, 16),
    ],
}


@pytest.mark.parametrize("removals", START.values(), ids=START)
def test_scores_are_the_perplexities_of_physically_pruned_models(
    dense: PreTrainedModel, windows: Windows, removals: list[Candidate]
) -> None:
    state = state_after(dense, *removals)
    candidates = all_candidates(state)
    expected = [
        plain_perplexity(pruned(dense, state.without(candidate)).model, windows)
        for candidate in candidates
    ]
    assert scores(pruned(dense, state), candidates, windows) == pytest.approx(expected, rel=CLOSE)
    unchanged = plain_perplexity(pruned(dense, state).model, windows)
    assert all(abs(ppl / unchanged - 1) > 100 * CLOSE for ppl in expected)


def test_scoring_leaves_the_model_as_it_was(dense: PreTrainedModel, windows: Windows) -> None:
    model = PrunableModel(copy.deepcopy(dense))
    before, state = copy.deepcopy(model.model.state_dict()), model.state
    scores(model, all_candidates(model.state), windows)
    after = model.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.state == state
    assert plain_perplexity(model.model, windows) == plain_perplexity(dense, windows)


def test_scores_come_in_the_order_of_the_candidates(
    llama: PreTrainedModel, windows: Windows
) -> None:
    model = PrunableModel(llama)
    candidates = all_candidates(model.state)
    forwards = scores(model, candidates, windows)
    assert scores(model, candidates[::-1], windows) == forwards[::-1]
    assert scores(model, candidates[3:5], windows) == forwards[3:5]


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("sequences", [1, 2, 9, 30, 10_000])
def test_scores_do_not_depend_on_how_many_sequences_walk_together(
    dense: PreTrainedModel,
    windows: Windows,
    sequences: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = PrunableModel(dense)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows)
    monkeypatch.setattr(Budget, "now", room_for(sequences, rows))
    assert scores(model, candidates, windows) == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("sequences", [10, 10_000])
def test_progress_adds_up_to_one_step(
    llama: PreTrainedModel, windows: Windows, sequences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "now", room_for(sequences))
    model = PrunableModel(llama)
    shares: list[float] = []
    OnePass(0.5).losses(model, all_candidates(model.state), windows, shares.append)
    assert sum(shares) == pytest.approx(1)
    assert len(shares) > 10
    assert min(shares) > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 5e-3)])
def test_half_precision_is_as_close_to_float32_as_is_stated(dtype: str, tolerance: float) -> None:
    source = locate(str(BUILTIN / "stories-5m"), None, None)
    stories = (BUILTIN / "data" / "heldout.jsonl").read_text("utf-8").splitlines()[:8]
    ids = source.tokenizer("\n\n".join(json.loads(line)["text"] for line in stories))["input_ids"]
    windows = Windows(torch.tensor(ids[: 4 * 64]).view(4, 64), source.eos_id)
    found = {}
    for name in ("float32", dtype):
        model = load(source, name, "cpu", "sdpa")
        candidates = model.state.candidates(BLOCKS, 0)
        found[name] = scores(model, candidates, windows)
    assert found[dtype] == pytest.approx(found["float32"], rel=tolerance)
    assert found[dtype] != pytest.approx(found["float32"], rel=1e-6)


# Work kept between steps


@pytest.mark.parametrize("kind", ["blocks", "mlp_channels", "heads"])
def test_a_walk_that_starts_from_kept_states_gives_the_very_same_losses(
    dense: PreTrainedModel, windows: Windows, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the top down, so that much is kept; then at the bottom, so that nothing is."""
    group = {"blocks": 0, "mlp_channels": 8, "heads": 16}[kind]
    model, one_pass = PrunableModel(dense), OnePass(0.5)
    starts = noted_starts(monkeypatch)
    for layer in (2, 1, 0):
        candidates = model.state.candidates(STANDARD[kind], group)
        found = one_pass.losses(model, candidates, windows, lambda _: None)
        fresh = OnePass(0.5).losses(model, candidates, windows, lambda _: None)
        assert torch.equal(found, fresh)
        model.prune_to(model.state.without(next(c for c in candidates if c.layer == layer)))
    assert [starts[0], starts[2], starts[4]] == [0, 4, 2]
    assert [starts[1], starts[3], starts[5]] == [0, 0, 0]


def test_kept_states_are_of_use_for_the_same_windows_only(
    llama: PreTrainedModel, windows: Windows
) -> None:
    model, one_pass = PrunableModel(llama), OnePass(0.5)
    candidates = all_candidates(model.state)
    others = Windows(windows.ids.flip(0), EOS)
    for asked in (windows, others, windows):
        found = one_pass.losses(model, candidates, asked, lambda _: None)
        assert torch.equal(found, OnePass(0.5).losses(model, candidates, asked, lambda _: None))


def test_nothing_is_kept_where_there_is_no_room(
    llama: PreTrainedModel, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, one_pass = PrunableModel(llama), OnePass(0.5)
    candidates = all_candidates(model.state)
    monkeypatch.setattr(Budget, "now", room_for((len(candidates) + 1) * len(windows.ids)))
    starts = noted_starts(monkeypatch)
    for _ in range(2):
        one_pass.losses(model, candidates, windows, lambda _: None)
    assert starts == [0, 0]


def noted_starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks from which walks start, as they start."""
    starts: list[int] = []
    real = one_pass_module._work

    def work(model: PrunableModel, tile: Tile, start: int) -> int:
        starts.append(start)
        return real(model, tile, start)

    monkeypatch.setattr(one_pass_module, "_work", work)
    return starts


# The loss


def test_the_perplexity_of_the_live_model_is_that_of_its_forward_pass(
    dense: PreTrainedModel, windows: Windows
) -> None:
    for removals in START.values():
        model = pruned(dense, state_after(dense, *removals))
        expected = plain_perplexity(model.model, windows)
        assert perplexity(model, windows) == pytest.approx(expected, rel=CLOSE)


def test_ends_of_sequence_do_not_count_as_targets_unless_no_id_is_given(
    llama: PreTrainedModel, windows: Windows
) -> None:
    model, all_count = PrunableModel(llama), Windows(windows.ids, None)
    without = perplexity(model, windows)
    with_them = perplexity(model, all_count)
    assert without == pytest.approx(plain_perplexity(llama, windows), rel=CLOSE)
    assert with_them == pytest.approx(plain_perplexity(llama, all_count), rel=CLOSE)
    assert abs(without / with_them - 1) > 100 * CLOSE


def test_every_window_weighs_the_same_however_many_targets_it_has(
    llama: PreTrainedModel, windows: Windows
) -> None:
    model = PrunableModel(llama)
    each = [math.log(perplexity(model, Windows(row[None], EOS))) for row in windows.ids]
    expected = math.exp(sum(each) / len(each))
    assert perplexity(model, windows) == pytest.approx(expected, rel=CLOSE)


def test_logits_may_be_taken_in_small_pieces(
    llama: PreTrainedModel, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PrunableModel(llama)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows)
    monkeypatch.setattr(perplexity_module, "LOGITS_AT_ONCE", {"cpu": 7 * SIZES["vocab_size"]})
    assert scores(model, candidates, windows) == pytest.approx(expected, rel=CLOSE)


def test_a_model_that_gives_no_number_has_no_perplexity(
    llama: PreTrainedModel, windows: Windows
) -> None:
    llama.model.layers[1].mlp.down_proj.weight[:, -1] = math.nan
    model = PrunableModel(llama)
    finite = {
        candidate
        for candidate, ppl in zip(
            all_candidates(model.state),
            scores(model, all_candidates(model.state), windows),
            strict=True,
        )
        if ppl is not None
    }
    whole = {Candidate(MLP, 1, 0), Candidate(LAYER, 1, 0)}
    assert finite == {*whole, Candidate(MLP_WIDTH, 1, 16)}
    assert perplexity(model, windows) is None


@pytest.mark.parametrize("losses", [[math.nan, 1.0], [math.inf, 1.0], [800, 800]])
def test_a_perplexity_that_no_float_can_hold_is_none(losses: list[float]) -> None:
    assert perplexity_of_losses(torch.tensor(losses, dtype=torch.float64)) is None


def test_the_perplexity_is_the_exponential_of_the_mean_over_windows() -> None:
    assert perplexity_of_losses(torch.tensor([1.0, 3.0])) == pytest.approx(math.e**2)
    assert perplexity_of_losses(torch.tensor([709.0], dtype=torch.float64)) == math.exp(709)


# Memory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Lets no more than a number of sequences walk at a time, and notes what was tried."""
    real = OnePass._walk
    tried: list[int] = []

    def limit(sequences: int) -> list[int]:
        def walk(self: OnePass, model: PrunableModel, tile: Tile, *rest: Any) -> Tensor:
            tried.append(tile.sequences)
            if tile.sequences > sequences:
                rest[-1].add(0.3)
                raise torch.OutOfMemoryError("pretend")
            return real(self, model, tile, *rest)

        monkeypatch.setattr(OnePass, "_walk", walk)
        return tried

    return limit


def test_where_memory_runs_out_fewer_sequences_walk_and_the_scores_stay(
    llama: PreTrainedModel, windows: Windows, memory: Callable[[int], list[int]]
) -> None:
    model, one_pass = PrunableModel(llama), OnePass(0.5)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows)
    together = len(candidates) + 1
    tried = memory(2 * together)
    shares: list[float] = []
    losses = one_pass.losses(model, candidates, windows, shares.append)
    assert [s.score for s in scored(candidates, losses)] == pytest.approx(expected, rel=CLOSE)
    assert tried == [5 * together, 2 * together, together, 2 * together]
    assert sum(shares) == pytest.approx(1)
    tried.clear()
    scores(model, candidates, windows, one_pass)
    assert max(tried) <= 2 * together, "what was too much is not tried again"


def test_candidates_part_where_not_all_fit_with_one_window(
    llama: PreTrainedModel, windows: Windows, memory: Callable[[int], list[int]]
) -> None:
    model = PrunableModel(llama)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows)
    tried = memory(3)
    assert scores(model, candidates, windows) == pytest.approx(expected, rel=CLOSE)
    assert sum(t <= 3 for t in tried) >= len(windows.ids) * len(candidates) / 2


def test_where_not_even_one_window_fits_the_user_is_told_what_to_change(
    llama: PreTrainedModel, windows: Windows, memory: Callable[[int], list[int]]
) -> None:
    memory(0)
    model = PrunableModel(llama)
    with pytest.raises(StageError, match=r"one window of 12 tokens.*calibration\.seqlen"):
        scores(model, all_candidates(model.state), windows)
