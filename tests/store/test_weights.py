"""A GGUF file is dequantised once; what was kept of it is the same, or is not taken."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support_inputs import MODEL
from transformers import AutoModelForCausalLM, LlamaConfig, modeling_gguf_pytorch_utils

from pipeline.errors import StageError
from pipeline.export.gguf import file
from pipeline.export.hf import OF_THE_DENSE_MODEL
from pipeline.jobs.checking import units_of_store
from pipeline.models.loading import load
from pipeline.models.packing import PackedModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import ModelSource, locate
from pipeline.store.results import Store

NO_TOKENIZER: Any = SimpleNamespace(
    tokenizer_files=[], folder=Path("/nowhere"), gguf_file=None, name="tiny"
)


@pytest.fixture(params=[True, False], ids=["tied", "not tied"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> ModelSource:
    """A GGUF file in float16 of a random model."""
    torch.manual_seed(0)
    config = LlamaConfig(**MODEL | {"hidden_size": 32}, tie_word_embeddings=request.param)
    model = PrunableModel(AutoModelForCausalLM.from_config(config))
    file.write(PackedModel.of(model, config), NO_TOKENIZER, tmp_path / "model.gguf", "f16")
    return locate(str(tmp_path), "model.gguf", None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def dequantised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each time that transformers reads the weights of a GGUF file."""
    times: list[str] = []
    original = modeling_gguf_pytorch_utils.get_gguf_hf_weights_map

    def counted(*arguments: Any, **settings: Any) -> Any:
        times.append("read")
        return original(*arguments, **settings)

    monkeypatch.setattr(modeling_gguf_pytorch_utils, "get_gguf_hf_weights_map", counted)
    return times


def weights(model: PrunableModel) -> dict[str, torch.Tensor]:
    return dict(model.model.state_dict())


def assert_same(model: PrunableModel, other: PrunableModel) -> None:
    mine, others = weights(model), weights(other)
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    assert {tensor.dtype for tensor in mine.values()} == {
        tensor.dtype for tensor in others.values()
    }
    configs = [m.model.config.to_dict() for m in (model, other)]
    for config in configs:  # say where the weights were read from, and exports leave them out
        for key in OF_THE_DENSE_MODEL:
            config.pop(key, None)
    assert configs[0] == configs[1]
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        assert torch.equal(model.model(ids).logits, other.model(ids).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_second_load_takes_what_was_kept_and_is_the_same(
    source: ModelSource, store: Store, dequantised: list[str], dtype: str
) -> None:
    plain = load(source, dtype, "cpu", "sdpa")
    first = load(source, dtype, "cpu", "sdpa", kept=store.weights)
    read = len(dequantised)
    again = load(locate(str(source.folder), "model.gguf", None), dtype, "cpu", "sdpa",
                 kept=Store(store.root).weights)  # fmt: skip
    assert len(dequantised) == read > 0
    assert_same(first, plain)
    assert_same(again, plain)


def test_other_formats_and_other_content_are_kept_apart(source: ModelSource, store: Store) -> None:
    path = source.config_file
    store.weights.keep(path, "float32", lambda folder: _written(folder, b"weights"))
    assert store.weights.find(path, "float32") is not None
    assert store.weights.find(path, "bfloat16") is None
    path.write_bytes(path.read_bytes() + b"more")
    assert store.weights.find(path, "float32") is None


def _written(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _change(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8)


DAMAGES: list[Callable[[Path], object]] = [
    _cut,
    _change,
    lambda folder: (folder / "model.safetensors").unlink(),
    lambda folder: (folder / "files.json").write_text("{}"),
    lambda folder: (folder / "files.json").write_bytes(b"\xff"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_told_by_the_check_and_made_again(
    tmp_path: Path, store: Store, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"file")
    store.weights.keep(path, "float32", lambda folder: _written(folder, b"weights" * 9))
    folder = store.weights.find(path, "float32")
    assert folder is not None
    damage(folder)
    (damaged,) = [each for unit in units_of_store(store.root) for each in unit.damages()]
    assert damaged.path.parent == folder
    assert store.weights.find(path, "float32") is None
    store.weights.keep(path, "float32", lambda folder: _written(folder, b"weights" * 9))
    assert store.weights.find(path, "float32") == folder
    assert [each for unit in units_of_store(store.root) for each in unit.damages()] == []


def test_without_room_nothing_is_kept_and_nothing_is_left(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"file")

    def full(folder: Path) -> None:
        _written(folder, b"half")
        raise OSError(28, "No space left on device")

    store.weights.keep(path, "float32", full)
    assert store.weights.find(path, "float32") is None
    assert [entry for entry in (store.root / "weights").rglob("*") if entry.is_file()] == []


def test_a_file_that_lacks_weights_is_not_kept(
    source: ModelSource, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.loading._lacking", lambda _: iter(["one is missing"]))
    with pytest.raises(StageError, match="is not whole: one is missing"):
        load(source, "float32", "cpu", "sdpa", kept=store.weights)
    assert not (store.root / "weights").exists()
