"""Exact scores against the forward pass of a model that each candidate was really removed from."""

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel

from pipeline.errors import StageError
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.state import Candidate, PruningState
from pipeline.scoring import exhaustive, perplexity
from pipeline.scoring.exhaustive import score_all
from pipeline.scoring.perplexity import Windows, perplexity_of_losses

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
        *state.candidates("blocks", 0),
        *state.candidates("mlp_channels", 8),
        *state.candidates("heads", state.shape.attn.granule),
    ]


def scores(
    model: PrunableModel, candidates: Sequence[Candidate], windows: Windows, batch_windows: int = 2
) -> list[float | None]:
    scored = score_all(model, candidates, windows, batch_windows, lambda _: None)
    assert [s.candidate for s in scored] == list(candidates)
    return [s.ppl for s in scored]


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
    "first_attention_gone": [Candidate("attn", 0, 0), Candidate("mlp", 1, 0)],
    "all_attentions_gone": [Candidate("attn", layer, 0) for layer in range(3)],
    "one_block_left": [
        *(Candidate("attn", layer, 0) for layer in range(3)),
        *(Candidate("mlp", layer, 0) for layer in range(2)),
    ],
    "already_narrow": [
        Candidate("mlp", 0, 0),
        Candidate("mlp_width", 1, 9),
        Candidate("mlp_width", 2, 16),
        Candidate("attn_width", 1, 16),
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


@pytest.mark.parametrize("batch_windows", [1, 3, 5, 64])
def test_scores_do_not_depend_on_how_many_windows_run_at_a_time(
    dense: PreTrainedModel, windows: Windows, batch_windows: int
) -> None:
    model = PrunableModel(dense)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows, batch_windows=2)
    assert scores(model, candidates, windows, batch_windows) == pytest.approx(expected, rel=CLOSE)


def test_progress_adds_up_to_one_step(llama: PreTrainedModel, windows: Windows) -> None:
    model = PrunableModel(llama)
    shares: list[float] = []
    score_all(model, all_candidates(model.state), windows, 2, shares.append)
    assert shares == pytest.approx([0.4, 0.4, 0.2])


# The loss


def test_the_perplexity_of_the_live_model_is_that_of_its_forward_pass(
    dense: PreTrainedModel, windows: Windows
) -> None:
    for removals in START.values():
        model = pruned(dense, state_after(dense, *removals))
        expected = plain_perplexity(model.model, windows)
        assert exhaustive.perplexity(model, windows) == pytest.approx(expected, rel=CLOSE)


def test_ends_of_sequence_do_not_count_as_targets_unless_no_id_is_given(
    llama: PreTrainedModel, windows: Windows
) -> None:
    model, all_count = PrunableModel(llama), Windows(windows.ids, None)
    without = exhaustive.perplexity(model, windows)
    with_them = exhaustive.perplexity(model, all_count)
    assert without == pytest.approx(plain_perplexity(llama, windows), rel=CLOSE)
    assert with_them == pytest.approx(plain_perplexity(llama, all_count), rel=CLOSE)
    assert abs(without / with_them - 1) > 100 * CLOSE


def test_every_window_weighs_the_same_however_many_targets_it_has(
    llama: PreTrainedModel, windows: Windows
) -> None:
    model = PrunableModel(llama)
    each = [math.log(exhaustive.perplexity(model, Windows(row[None], EOS))) for row in windows.ids]
    expected = math.exp(sum(each) / len(each))
    assert exhaustive.perplexity(model, windows) == pytest.approx(expected, rel=CLOSE)


def test_logits_may_be_taken_in_small_pieces(
    llama: PreTrainedModel, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PrunableModel(llama)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows)
    monkeypatch.setattr(perplexity, "LOGITS_PER_CHUNK", 7 * SIZES["vocab_size"])
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
    assert finite == {Candidate("mlp", 1, 0), Candidate("mlp_width", 1, 16)}
    assert exhaustive.perplexity(model, windows) is None


@pytest.mark.parametrize("losses", [[math.nan, 1.0], [math.inf, 1.0], [800, 800]])
def test_a_perplexity_that_no_float_can_hold_is_none(losses: list[float]) -> None:
    assert perplexity_of_losses(torch.tensor(losses, dtype=torch.float64)) is None


def test_the_perplexity_is_the_exponential_of_the_mean_over_windows() -> None:
    assert perplexity_of_losses(torch.tensor([1.0, 3.0])) == pytest.approx(math.e**2)
    assert perplexity_of_losses(torch.tensor([709.0], dtype=torch.float64)) == math.exp(709)


# Memory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Lets no more than a number of windows run at a time, and notes what was tried."""
    real = exhaustive._losses
    tried: list[int] = []

    def limit(windows: int) -> list[int]:
        def losses(model: PrunableModel, candidates: Sequence[Candidate], ids: Tensor, eos_id: int):
            tried.append(len(ids))
            if len(ids) > windows:
                raise torch.OutOfMemoryError("pretend")
            return real(model, candidates, ids, eos_id)

        monkeypatch.setattr(exhaustive, "_losses", losses)
        return tried

    return limit


def test_where_memory_runs_out_fewer_windows_run_and_the_scores_stay(
    llama: PreTrainedModel, windows: Windows, memory: Callable[[int], list[int]]
) -> None:
    model = PrunableModel(llama)
    candidates = all_candidates(model.state)
    expected = scores(model, candidates, windows, batch_windows=1)
    tried = memory(1)
    shares: list[float] = []
    scored = score_all(model, candidates, windows, 4, shares.append)
    assert [s.ppl for s in scored] == expected
    assert tried == [4, 2, 1, 1, 1, 1, 1]
    assert shares == pytest.approx([0.2] * 5)


def test_where_not_even_one_window_fits_the_user_is_told_what_to_change(
    llama: PreTrainedModel, windows: Windows, memory: Callable[[int], list[int]]
) -> None:
    memory(0)
    model = PrunableModel(llama)
    with pytest.raises(StageError, match=r"one window of 12 tokens.*calibration\.seqlen"):
        scores(model, all_candidates(model.state), windows)
