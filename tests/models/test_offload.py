"""Blocks whose weights are brought when they run, against the same model held in memory."""

import copy
import gc
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.errors import StageError
from pipeline.models import offload as offload_module
from pipeline.models.offload import Place, StoredWeights
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import (
    ATTN,
    ATTN_WIDTH,
    BLOCKS,
    HEADS,
    MLP,
    MLP_CHANNELS,
    MLP_WIDTH,
    Candidate,
)
from pipeline.scoring.one_pass import OnePass, perplexity
from pipeline.scoring.perplexity import Windows

Build = Callable[[PretrainedConfig | str], PreTrainedModel]
PLACES: tuple[Place, ...] = ("cpu", "disk")
CPU = torch.device("cpu")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    kept: Place = request.param
    return kept


@pytest.fixture
def windows() -> Windows:
    ids = torch.randint(61, (3, 18), generator=torch.Generator().manual_seed(1))
    return Windows(ids, None)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[StoredWeights]:
    """The blocks' weights that were copied to the device, in order."""
    seen: list[StoredWeights] = []
    copy_into = offload_module.Stream._copy

    def counted(self: Any, stored: StoredWeights, slot: Any) -> None:
        seen.append(stored)
        copy_into(self, stored, slot)

    monkeypatch.setattr(offload_module.Stream, "_copy", counted)
    return seen


def pair(dense: PreTrainedModel, place: Place) -> tuple[PrunableModel, PrunableModel]:
    """The model in memory, and the same one offloaded."""
    resident, streamed = PrunableModel(copy.deepcopy(dense)), PrunableModel(dense)
    streamed.offload(CPU, place)
    return resident, streamed


def all_candidates(state: PruningState) -> list[Candidate]:
    return [
        *state.candidates(BLOCKS, 0),
        *state.candidates(MLP_CHANNELS, 8),
        *state.candidates(HEADS, state.shape.layers[0].attn.group_width),
    ]


def losses(scorer: OnePass, model: PrunableModel, windows: Windows) -> Tensor:
    return scorer.losses(model, all_candidates(model.state), windows, lambda _: None)


def is_home(block: Any) -> bool:
    stored = block.offloaded.stored.tensors
    return all(
        p.data_ptr() == t.data_ptr() for p, t in zip(block.parameters(), stored, strict=True)
    )


def test_every_step_has_the_losses_of_the_resident_model(
    dense: PreTrainedModel, place: Place, windows: Windows
) -> None:
    resident, streamed = pair(dense, place)
    resident.reorder()
    streamed.reorder()
    scorers = OnePass(0.5), OnePass(0.5)
    removed: list[Candidate] = []
    for index in (5, 8, -1, 0, -2):
        expected = losses(scorers[0], resident, windows)
        assert torch.equal(losses(scorers[1], streamed, windows), expected)
        assert perplexity(streamed, windows) == perplexity(resident, windows)
        ids = windows.ids[:1]
        assert torch.equal(streamed.model(ids).logits, resident.model(ids).logits)
        removed.append(all_candidates(resident.state)[index])
        for model in (resident, streamed):
            model.prune_to(model.state.without(removed[-1]))
    assert {candidate.unit for candidate in removed} == {ATTN, MLP, MLP_WIDTH, ATTN_WIDTH}


def test_cached_generation_is_that_of_the_resident_model(
    build: Build, place: Place, ids: Tensor
) -> None:
    resident, streamed = pair(build("qwen2_mixed"), place)
    said = [m.model.generate(ids, max_new_tokens=4, do_sample=False) for m in (resident, streamed)]
    assert torch.equal(*said)


def test_a_walk_brings_each_block_once_for_all_candidates(
    build: Build, place: Place, windows: Windows, copies: list[StoredWeights]
) -> None:
    _, streamed = pair(build("mistral"), place)
    for _ in range(2):
        copies.clear()
        losses(OnePass(0.5), streamed, windows)
        assert copies == [block.offloaded.stored for block in streamed.blocks if block.offloaded]


def test_no_more_than_two_blocks_are_on_the_device(
    build: Build, place: Place, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, streamed = pair(build("mistral"), place)
    away = []
    for block in streamed.blocks:
        assert block.offloaded
        block.body.register_forward_hook(
            lambda *_: away.append([b for b in streamed.blocks if not is_home(b)])
        )
    losses(OnePass(0.5), streamed, windows)
    assert away
    assert {len(blocks) for blocks in away} == {1}  # and the next block's copy
    slots = streamed.blocks[0].offloaded.stream._slots  # type: ignore[union-attr]
    largest = max(b.offloaded.stored.bytes for b in streamed.blocks if b.offloaded)
    assert [slot.memory.nbytes for slot in slots] == [largest] * 2


def test_a_walk_that_ran_out_of_memory_is_repeated(
    build: Build, place: Place, windows: Windows
) -> None:
    resident, streamed = pair(build("llama_biases_tied"), place)
    expected = losses(OnePass(0.5), resident, windows)
    left = [1]

    def fail_once(*_: object) -> None:
        if left and left.pop():
            raise torch.OutOfMemoryError

    streamed.blocks[3].body.register_forward_hook(fail_once)
    found = losses(OnePass(0.5), streamed, windows)
    assert not left
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert torch.equal(losses(OnePass(0.5), streamed, windows), expected)


def test_weights_are_in_place_after_an_error(build: Build, place: Place, ids: Tensor) -> None:
    resident, streamed = pair(build("mistral"), place)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    handle = streamed.blocks[2].body.register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        streamed.model(ids)
    handle.remove()
    assert [not is_home(block) for block in streamed.blocks].count(True) == 1
    same = map(torch.equal, streamed.model.parameters(), resident.model.parameters())
    assert all(same)
    assert torch.equal(streamed.model(ids).logits, resident.model(ids).logits)


def test_nothing_is_left_on_disk(
    build: Build, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, streamed = pair(build("mistral"), "disk")
    perplexity(streamed, windows)
    assert not list(tmp_path.iterdir())
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no list of mapped files here")
    assert maps.read_text().count(str(tmp_path)) >= len(streamed.blocks)
    before = maps.read_text().count(str(tmp_path))
    streamed.prune_to(streamed.state.without(Candidate(MLP, 1, 0)))
    gc.collect()
    assert maps.read_text().count(str(tmp_path)) < before


def test_a_disk_without_room_is_an_error_that_says_what_to_do(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StageError, match="TMPDIR"):
        PrunableModel(build("mistral")).offload(CPU, "disk")


def test_memory_is_freed_with_the_model(build: Build, place: Place, ids: Tensor) -> None:
    _, streamed = pair(build("mistral"), place)
    streamed.model(ids)
    offloaded = streamed.blocks[0].offloaded
    assert offloaded
    stream, weights = weakref.ref(offloaded.stream), weakref.ref(offloaded.stored)
    gc.collect()
    gc.disable()
    try:
        for block in streamed.blocks:
            block.offloaded = None
        del offloaded, block
        assert stream() is None
        assert weights() is None
    finally:
        gc.enable()


@pytest.mark.gpu
@pytest.mark.parametrize("kept", PLACES)
def test_a_gpu_streams_the_same_losses(build: Build, kept: Place, windows: Windows) -> None:
    resident, streamed = (PrunableModel(build("mistral")) for _ in range(2))
    resident.model.to("cuda")
    streamed.offload(torch.device("cuda"), kept)
    resident.reorder()
    streamed.reorder()
    scorers = OnePass(0.5), OnePass(0.5)
    for index in (3, -1, 0, -2):
        expected = losses(scorers[0], resident, windows)
        found = losses(scorers[1], streamed, windows)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        ids = windows.ids.to("cuda")
        assert torch.equal(streamed.model(ids).logits, resident.model(ids).logits)
        candidate = all_candidates(resident.state)[index]
        for model in (resident, streamed):
            model.prune_to(model.state.without(candidate))
    assert streamed.device.type == "cuda"
    blocks = [block for block in streamed.blocks if is_home(block)]
    assert len(blocks) >= len(streamed.blocks) - 1
    if kept == "cpu":
        assert all(parameter.is_pinned() for block in blocks for parameter in block.parameters())
